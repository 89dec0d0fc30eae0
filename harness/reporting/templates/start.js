// Events, and the first drawing.
for (const radio of radios) {
  radio.addEventListener("change", () => {
    state.selection = radio.value;
    writeHash();
    apply();
    for (const view of methodViews) if (view.open) fillMethod(view);
  });
}
for (const table of boards.values()) {
  table.tHead.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (button) onSort(table, button);
  });
}
function onFilter() {
  state.filters.clear();
  for (const { name, value } of filters) if (value.trim()) state.filters.set(name, value.trim());
  writeHash();
  announce(`${filter()} rows`);
}
for (const field of filters) field.addEventListener("input", onFilter);
controls.addEventListener("reset", () => setTimeout(() => {
  state.filters.clear();
  apply();
  writeHash();
}));
document.addEventListener("click", (event) => {
  const link = event.target.closest("a[href^='#']");
  if (!link || !document.getElementById(link.hash.slice(1))) return;
  event.preventDefault();
  state.open = link.hash.slice(1);
  writeHash();
  reveal();
});
function onHash() {
  readHash();
  apply();
  reveal();
}
window.addEventListener("hashchange", onHash);
for (const form of document.forms) form.addEventListener("submit", (event) => event.preventDefault());
onHash();
