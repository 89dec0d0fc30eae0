// The tables of the papers: a status, a data set, a source and the search leave over cells; their rows and tables stay.
const papers = all("details.paper");
function filterPapers() {
  const [status, set, source] = ["status", "set", "source"].map((name) => state.filters.get(name) ?? "");
  for (const paper of papers) {
    let left = 0;
    for (const row of all("tbody tr", paper)) {
      const found = all(".paper-cell", row).filter((cell) => {
        const kept = fits(`${row.dataset.words} ${cell.dataset.set}`) && (!status || status === cell.dataset.status) && (!set || set === cell.dataset.set);
        cell.classList.toggle("dim", !kept);
        return kept;
      });
      row.hidden = !found.length;
      left += found.length;
    }
    paper.hidden = !left || Boolean(source && source !== paper.dataset.source);
  }
  const shown = papers.filter((paper) => !paper.hidden);
  if ((status || set || source) && shown.length <= 8) for (const paper of shown) paper.open = true;
  for (const one of all("button.pick")) one.setAttribute("aria-pressed", one.dataset.set === set && one.dataset.source === source);
  const nothing = document.querySelector(".no-paper");
  if (nothing) nothing.hidden = shown.length > 0;
}

for (const button of all("button.pick")) {
  button.addEventListener("click", () => {
    const off = button.getAttribute("aria-pressed") === "true";
    for (const name of ["status", "set", "source"]) state.filters.delete(name);
    if (!off) for (const name of ["set", "source"]) state.filters.set(name, button.dataset[name]);
    apply();
    writeHash();
    announce(`${papers.filter((paper) => !paper.hidden).length} tables`);
    if (!off) papers.find((paper) => !paper.hidden)?.scrollIntoView({ block: "start" });
  });
}
