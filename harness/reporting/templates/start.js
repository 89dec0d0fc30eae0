// Events, and the first drawing.
function onChange({ target }) {
  if (target.name === "selection") state.selection = target.value;
  if (target.name === "column") state.off = columns.filter(({ checked }) => !checked).map(({ value }) => value).join(" ");
  if (target.name === "board") {
    state.board = target.value;
    state.compare = null;
    if (!backbones().has(state.filters.get("backbone"))) state.filters.delete("backbone");
    state.open = state.view;
    remember();
  }
  apply();
  writeHash(target.name === "board");
  for (const view of methodViews) if (view.open) fillMethod(view);
}
function onFilter() {
  for (const { name, value } of filters) {
    if (value.trim()) state.filters.set(name, value.trim());
    else state.filters.delete(name);
  }
  filter();
  showView();
  writeHash();
  announce(`Matches: ${left(state.view)}`);
}
controls.addEventListener("change", (event) => !filters.includes(event.target) && onChange(event));
for (const field of filters) field.addEventListener("input", onFilter);
controls.addEventListener("reset", () => setTimeout(() => {
  state.filters.clear();
  state.sorts.clear();
  Object.assign(state, { selection: DEFAULT.selection, off: DEFAULT.off });
  for (const button of all("button.unfold")) button.setAttribute("aria-expanded", false);
  apply();
  writeHash();
}));
for (const table of boards.values()) {
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) onSort(table, button);
  });
}
document.addEventListener("click", (event) => {
  const unfold = event.target.closest("button.unfold");
  if (unfold) onUnfold(unfold);
  const menu = document.querySelector(".columns[open]");
  if (menu && !menu.contains(event.target)) menu.open = false;
  const number = getSelection().isCollapsed && event.target.closest(".board td.number");
  const link = event.target.closest("a[href^='#']") ?? (number ? number.parentElement.querySelector("th a") : null);
  const opened = event.target.closest(":is(.method, .drawer) > summary")?.parentElement;
  if (!link && !opened) return;
  remember();
  if (opened) state.open = opened.open ? state.view : opened.id; // it is about to change
  else if (!document.getElementById(link.hash.slice(1))) return;
  else {
    event.preventDefault();
    state.open = link.hash.slice(1);
    reveal();
  }
  writeHash(true);
});
document.addEventListener("keydown", (event) => {
  const menu = document.querySelector(".columns[open]");
  if (event.key !== "Escape" || !menu) return;
  menu.open = false;
  menu.querySelector("summary").focus();
});
function onHash() {
  readHash();
  for (const one of all(":is(.method, .drawer)[open]")) one.open = one.id === state.open;
  apply();
  reveal();
  if (history.state) window.scrollTo(0, history.state.y);
}
window.addEventListener("popstate", onHash); // Back, Forward, and another hash
window.addEventListener("pagehide", remember);
history.scrollRestoration = "manual";
window.addEventListener("resize", showView);
more.addEventListener("click", () => {
  more.setAttribute("aria-expanded", more.getAttribute("aria-expanded") !== "true");
  showView();
});
const foldGists = () => all("details.gist").forEach((one) => { one.open = !narrow.matches; });
narrow.addEventListener("change", foldGists);
foldGists();
for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
onHash();
