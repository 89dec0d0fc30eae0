// The search. A word of the query fits where a word of a text begins (`ce` does not find `balanced`); signs between words do not
// count, so `weightbalancing` finds `weight_balancing`; and what ends in a digit ends a number.
const wordsOf = (text) => text.toLowerCase().normalize("NFKD").replaceAll(/\p{M}/gu, "").match(/[\p{L}\p{N}]+/gu) ?? [];
const begun = new Map(); // text -> its words in one, and where they begin
function fits(text) {
  if (!begun.has(text)) {
    const words = wordsOf(text);
    const starts = new Set();
    words.reduce((at, word) => starts.add(at) && at + word.length, 0);
    begun.set(text, [words.join(""), starts]);
  }
  const [joined, starts] = begun.get(text);
  const ends = (at) => !/\d$/.test(joined.slice(0, at)) || !/\d/.test(joined[at] ?? "") || starts.has(at);
  const asked = (state.filters.get("q") ?? "").trim();
  const query = asked.split(/\s+/).map((word) => wordsOf(word).join("")).filter(Boolean);
  return !(asked && !query.length) && query.every((word) => [...starts].some((at) => joined.startsWith(word, at) && ends(at + word.length)));
}

const counts = new Map(); // board -> rows that the search and the backbone leave over
let followed = null; // {from, to}: the boards before and after the search went to one that has a match

function filter() {
  matching.clear();
  for (const section of all("section.table")) counts.set(section.id, filterTable(section));
  follow();
  for (const node of all(".heat tr[data-find], .contrasts tr[data-find]:not(.study *), details[data-find]")) node.hidden = !fits(`${node.dataset.find} ${node.closest(".of-board")?.dataset.words ?? ""}`);
  for (const row of all(".heat .reference")) row.hidden &&= !all("tr[data-find]", row.parentElement).some((one) => !one.hidden); // colours are against it
  for (const part of all(".heat .scroll, section.table > .scroll, .findings-table, #findings .fold")) part.hidden = !all("tr[data-find], details[data-find]", part).some((one) => !one.hidden);
  filterPapers();
}

// Where the board in view has no match and another one has, that one comes into view, until the search fits the first again.
function follow() {
  if (!switcher) return;
  const now = state.board || switcher.options[0].value;
  const asked = followed?.to === now ? followed.from : now;
  const best = [...counts].sort(([, a], [, b]) => b - a)[0];
  followed = !counts.get(asked) && best?.[1] ? { from: asked, to: best[0] } : null;
  state.board = followed?.to ?? asked;
}

// How many things of a part of the page the search leaves over; null where it is not searched.
function left(view) {
  const shown = (selector) => all(selector, document.getElementById(view)).filter((node) => !node.hidden).length;
  if (view === "boards" || view === "pictures") return counts.get(state.board) ?? 0;
  return { overview: () => shown(".heat tr[data-find]"), findings: () => shown(".of-board.current [data-find]:not(.study *)"), published: () => shown("details.paper"), methods: () => shown("details.method") }[view]?.() ?? null;
}

// Says that nothing fits, and where something does; and that the board is another one.
function sayFound() {
  const asked = state.filters.get("q");
  const nothing = document.querySelector(".nothing");
  nothing.hidden = !(asked || state.filters.get("backbone")) || left(state.view) !== 0 || state.view === "published"; // which says so itself
  const others = nothing.hidden || !asked ? [] : all("header nav a").filter((link) => left(link.hash.slice(1)));
  nothing.replaceChildren(`Nothing here matches${asked ? ` \u201c${asked}\u201d` : ""}.`, ...others.flatMap((link, at) => [at ? ", " : " There are matches in ", html("a", { href: link.hash }, link.textContent)]), others.length ? "." : "");
  const moved = document.querySelector(".moved");
  moved.hidden = !followed || followed.to !== state.board || !["boards", "pictures", "findings"].includes(state.view);
  const [from, to] = ["from", "to"].map((end) => followed && [...switcher.options].find(({ value }) => value === followed[end]).textContent.trim());
  moved.textContent = moved.hidden ? "" : `No row of ${from} matches, so the data set is now ${to}.`;
}
document.addEventListener("ltbench:filter", sayFound);

// Why an epoch cannot be chosen for the board in view; pictures and a comparison fall back, a table has its own notice.
document.addEventListener("ltbench:filter", () => {
  const falls = ["pictures", "compare"].includes(state.view);
  const lacks = falls || state.view === "boards" ? lacksOf(state.board).filter((rule) => rule && (falls || rule !== state.selection)) : [];
  const note = document.querySelector(".lacking");
  note.hidden = !lacks.length;
  note.textContent = lacks.map((rule) => lackOf(state.board, rule)).join(" ");
  for (const radio of radios) radio.checked = radio.value === (falls && lacks.length ? ruleOf(state.board) : state.selection);
});
