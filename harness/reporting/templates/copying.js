// Copies a table as it is shown (rows, order, selection rule) as Markdown, LaTeX or CSV, and commands as text; saves the lines
// of a board in `tables/leaderboard.csv` as a file.
const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "\u2212": "$-$", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}" };
const FORMS = {
  md: (rows) => {
    const line = (cells) => `| ${cells.map((text) => text.replaceAll(/([\\`*_{}[\]|~$#<>])/g, "\\$1")).join(" | ")} |`;
    return [line(rows[0]), `|${rows[0].map((_, at) => (at < 2 ? "---" : "---:")).join("|")}|`, ...rows.slice(1).map(line)].join("\n");
  },
  tex: (rows) => {
    const line = (cells) => `${cells.map((text) => text.replaceAll(/[&%$#_{}]/g, "\\$&").replaceAll(/\\(?![&%$#_{}])|[~^±\u2212<>|]/g, (c) => LATEX[c])).join(" & ")} \\\\`;
    return [`\\begin{tabular}{${rows[0].map((_, at) => (at < 2 ? "l" : "r")).join("")}}`, "\\toprule", line(rows[0]), "\\midrule",
      ...rows.slice(1).map(line), "\\bottomrule", "\\end{tabular}"].join("\n");
  },
  // A text that a spreadsheet would take for a formula gets an apostrophe; numbers stay numbers.
  csv: (rows) => rows.map((cells) => cells.map((text) => {
    const plain = text.replaceAll("\u2212", "-");
    if (plain === "-") return "";
    const safe = /^[=+@-]/.test(plain) && !/^[+-]?[\d.]+( ± [\d.]+)?$/.test(plain) ? `'${plain}` : plain;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }).join(",")).join("\n"),
};

function textOf(cell) {
  const drawn = cell.querySelector("svg[role=img]"); // an interval
  const title = cell.querySelector("button[data-column]"); // without the ticks of an axis
  return (drawn?.getAttribute("aria-label") ?? (title ?? cell).innerText).replaceAll(/\s+/g, " ").trim();
}

function rowsOf(table) {
  return [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].filter((cell) => cell.offsetWidth).map((cell) => {
    const spans = [...cell.querySelectorAll(`.r[data-rule="${state.selection}"] > .mean, .r[data-rule="${state.selection}"] > .std`)];
    if (cell.dataset.text !== undefined) return cell.dataset.text;
    return spans.length ? spans.map((span) => span.textContent.trim()).filter(Boolean).join(" ") : textOf(cell);
  }));
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page opened from disk may not be allowed to
    const area = html("textarea", { "aria-hidden": "true", class: "announce" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const before = button.dataset.title ?? button.textContent;
  button.dataset.title = before;
  button.textContent = "Copied";
  announce("Copied");
  setTimeout(() => { button.textContent = before; }, 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const kind = button.dataset.copy;
  if (kind === "text") copy(button.closest("p").querySelector("code").textContent, button);
  else if (kind === "file") save(`${state.board}.csv`, "text/csv", charts.get(state.board).data.csv);
  else copy(`${FORMS[kind](rowsOf(button.closest("p").parentElement.querySelector("table")))}\n`, button);
});
