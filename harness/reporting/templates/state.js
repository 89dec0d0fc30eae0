// The state of the page and the URL's hash: #selection=best_val&sort=<table>:<column>:<direction>&q=gcl&track=paper
// &compare=<table>:<row>:<row>&open=<id of a part>. Other hashes are plain anchors. Numbers are formatted by the report, not here.
const root = document.documentElement;
root.classList.add("scripted");
const radios = [...document.querySelectorAll("input[name=selection]")];
const controls = document.querySelector("form.controls");
const filters = [...controls.querySelectorAll(".filters [name]")];
const boards = new Map([...document.querySelectorAll("table.board")].map((table) => [table.dataset.section, table]));
const DEFAULT = { selection: root.dataset.selection, column: "rank", direction: "ascending" };
const state = { selection: DEFAULT.selection, sorts: new Map(), filters: new Map(), compare: null, open: "" };

function readHash() {
  const hash = location.hash.slice(1);
  if (hash && !hash.includes("=")) {
    state.open = hash;
    return;
  }
  const given = new URLSearchParams(hash);
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
  const compare = given.get("compare")?.split(":");
  state.compare = compare?.length === 3 ? compare : null;
  state.open = given.get("open") ?? "";
}

function writeHash() {
  const given = new URLSearchParams();
  if (state.selection !== DEFAULT.selection) given.set("selection", state.selection);
  for (const [section, { column, direction }] of state.sorts) given.append("sort", `${section}:${column}:${direction}`);
  for (const [name, value] of state.filters) given.set(name, value);
  if (state.compare) given.set("compare", state.compare.join(":"));
  if (state.open) given.set("open", state.open);
  const hash = given.toString().replaceAll("%3A", ":");
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

function apply() {
  root.dataset.selection = state.selection;
  for (const radio of radios) radio.checked = radio.value === state.selection;
  for (const field of filters) field.value = state.filters.get(field.name) ?? "";
  for (const [section, table] of boards) sort(table, state.sorts.get(section) ?? DEFAULT);
  filter();
  for (const chart of charts.values()) chart.draw();
  comparison?.show();
}

// Opens a part of the page and goes there; links keep what else the hash says.
function reveal() {
  const target = state.open && document.getElementById(state.open);
  if (!target) return;
  const section = target.closest("section.table");
  if (section) section.hidden = false;
  if (target.tagName === "DETAILS") {
    target.open = true;
    target.querySelector("summary").focus({ preventScroll: true });
  }
  target.scrollIntoView({ block: "start" });
}

function announce(text) {
  document.querySelector(".announce").textContent = text;
}
