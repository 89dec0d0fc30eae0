// The state of the page and the URL's hash: #open=<id of a part>&board=<table>&selection=best_val&sort=<table>:<column>:<direction>
// &q=gcl&backbone=...&status=...&set=...&source=...&columns=<shown ones>&compare=<table>:<row>:<row>. Other hashes are plain anchors. Numbers are formatted by
// the report, not here.
const root = document.documentElement;
root.classList.add("scripted");
const all = (selector, within = document) => [...within.querySelectorAll(selector)];
const bar = document.querySelector(".masthead");
const tabs = bar.querySelector("nav");
const controls = document.querySelector("form.controls");
const radios = all("input[name=selection]");
const columns = all("input[name=column]");
const filters = all("[name=q], label > select:not([name=board])", controls);
const views = all(".view");
const boards = new Map(all("table.board").map((table) => [table.dataset.section, table]));
const switcher = controls.elements.namedItem("board");
const DEFAULT = { selection: root.dataset.selection, column: "rank", direction: "ascending", off: root.dataset.off };
const state = { view: "overview", board: "", selection: DEFAULT.selection, off: DEFAULT.off, sorts: new Map(), filters: new Map(), compare: null, open: "" };
const more = controls.querySelector(".more");
const backbone = controls.elements.namedItem("backbone");
const narrow = matchMedia("(max-width: 40rem)");

// The table that a hash names; older links name its data set, factor, track or policy.
function boardOf(given) {
  if (boards.has(given.get("board"))) return given.get("board");
  const named = ["dataset", "factor", "track", "policy"].filter((name) => given.get(name));
  const found = named.length && all("section.table").find(({ dataset }) => named.every((name) => dataset[name] === given.get(name)));
  return found ? found.id : "";
}

function readHash() {
  const hash = location.hash.slice(1);
  const given = new URLSearchParams(hash.includes("=") ? hash : { open: hash });
  const rule = given.get("selection");
  state.selection = radios.some((radio) => radio.value === rule) ? rule : DEFAULT.selection;
  state.sorts.clear();
  for (const text of given.getAll("sort")) {
    const [section, column, direction] = text.split(":");
    if (headerOf(boards.get(section), column) && ["ascending", "descending"].includes(direction)) {
      state.sorts.set(section, { column, direction });
    }
  }
  state.filters.clear();
  for (const { name } of filters) if (given.get(name)) state.filters.set(name, given.get(name));
  const shown = given.get("columns")?.split(",");
  state.off = shown ? columns.map(({ value }) => value).filter((value) => !shown.includes(value)).join(" ") : DEFAULT.off;
  const compare = given.get("compare")?.split(":");
  state.compare = compare?.length === 3 ? compare : null;
  state.board = boardOf(given);
  state.open = given.get("open") ?? (state.compare ? "compare" : hash ? "boards" : "");
}

// Where the page stands, for Back to come to; before a step to another part, board, row or method.
function remember() {
  history.replaceState({ y: window.scrollY }, "");
}

function writeHash(step = false) {
  const given = new URLSearchParams();
  if (state.open) given.set("open", state.open);
  if (state.board && state.board !== switcher.options[0].value) given.set("board", state.board);
  if (state.selection !== DEFAULT.selection) given.set("selection", state.selection);
  for (const [section, { column, direction }] of state.sorts) given.append("sort", `${section}:${column}:${direction}`);
  for (const [name, value] of state.filters) given.set(name, value);
  if (state.off !== DEFAULT.off) given.set("columns", columns.filter(({ checked }) => checked).map(({ value }) => value).join(","));
  if (state.compare) given.set("compare", state.compare.join(":"));
  const hash = given.toString().replaceAll("%3A", ":").replaceAll("%2C", ",");
  const how = step && hash !== location.hash.slice(1) ? "pushState" : "replaceState";
  history[how](null, "", hash ? `#${hash}` : location.pathname + location.search);
}

function apply() {
  root.dataset.selection = state.selection;
  root.dataset.off = state.off;
  for (const radio of radios) radio.checked = radio.value === state.selection;
  for (const box of columns) box.checked = !state.off.split(" ").includes(box.value);
  for (const field of filters) field.value = state.filters.get(field.name) ?? "";
  for (const [section, table] of boards) sort(table, state.sorts.get(section) ?? DEFAULT);
  filter();
  showView();
}

// The backbones of the table in view; of one alone there is no choice.
const backbones = () => new Set(all("tr[data-backbone]", boards.get(state.board)).map((row) => row.dataset.backbone));
function offerBackbones() {
  const there = backbones();
  for (const option of backbone.options) option.hidden = option.disabled = option.value !== "" && !there.has(option.value);
  if (there.size < 2 && !backbone.value) backbone.parentElement.hidden = true;
}

// One part of the page and one table at a time.
function showView() {
  if (switcher) {
    state.board ||= switcher.options[0].value;
    switcher.value = state.board;
  }
  root.dataset.view = state.view;
  for (const view of views) view.classList.toggle("current", view.id === state.view);
  for (const part of all("section.table, .of-board")) part.classList.toggle("current", (part.dataset.board ?? part.id) === state.board);
  for (const field of all("[data-views]", controls)) field.hidden = !field.dataset.views.split(" ").includes(state.view);
  if (backbone && boards.size) offerBackbones();
  const lacks = ["boards", "pictures", "compare"].includes(state.view) ? lacksOf(state.board) : [];
  for (const radio of radios) radio.disabled = lacks.includes(radio.value);
  controls.classList.toggle("filtered", state.filters.size > 0);
  root.style.setProperty("--bar", `${bar.offsetHeight + parseFloat(getComputedStyle(bar).top)}px`); // what of it stays
  for (const link of all("a", tabs)) {
    if (link.hash !== `#${state.view}`) { link.removeAttribute("aria-current"); continue; }
    link.setAttribute("aria-current", "page");
    tabs.scrollLeft += link.getBoundingClientRect().left - tabs.getBoundingClientRect().left - 48; // on a phone they are a strip
  }
  document.dispatchEvent(new CustomEvent("ltbench:filter", { detail: { board: state.board, rows: matching } })); // the pictures
  if (state.view === "compare") comparison?.show();
  for (const part of all(".view.current .scroll")) part.classList.toggle("wide", part.scrollWidth > part.clientWidth + 1);
}

// Opens a part of the page and goes there; links keep what else the hash says.
function reveal() {
  const target = (state.open && document.getElementById(state.open)) || views[0];
  state.view = (target.closest(".view") ?? views[0]).id;
  const part = target.closest("section.table, .of-board");
  if (part) state.board = part.dataset.board ?? part.id;
  for (let node = target; node; node = node.parentElement?.closest("details")) if (node.tagName === "DETAILS") node.open = true;
  showView();
  for (const node of all(".here")) node.classList.remove("here");
  if (target.tagName === "LI") target.classList.add("here");
  if (target.tagName === "DETAILS") target.querySelector("summary").focus({ preventScroll: true });
  if (target.classList.contains("view") || target === part) window.scrollTo(0, 0);
  else target.scrollIntoView({ block: "start" });
}

function announce(text) {
  document.querySelector(".announce[aria-live]").textContent = text;
}
