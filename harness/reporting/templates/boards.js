// Sorting and filtering the tables. A table sorts on the mean at the chosen rule; rows without a value stay last; equal rows keep the report's order.
function headerOf(table, column) {
  return [...(table?.tHead.rows[0].cells ?? [])].find((cell) => cell.querySelector("button").dataset.column === column);
}

function keyOf(cell) {
  if (cell.dataset.text !== undefined) return cell.dataset.text.toLowerCase();
  const holder = cell.dataset.value !== undefined ? cell : cell.querySelector(`[data-rule="${state.selection}"]`);
  return holder?.dataset.value === undefined ? null : Number(holder.dataset.value);
}

function sort(table, { column, direction }) {
  const header = headerOf(table, column);
  const sign = direction === "ascending" ? 1 : -1;
  table.originalRows ??= [...table.tBodies[0].rows];
  const keyed = table.originalRows.map((row) => [keyOf(row.cells[header.cellIndex]), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null);
    return a < b ? -sign : a > b ? sign : 0;
  });
  table.tBodies[0].append(...keyed.map(([, row]) => row));
  for (const cell of header.parentElement.cells) cell.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", direction);
}

function onSort(table, button) {
  const { column, first } = button.dataset;
  const now = button.closest("th").getAttribute("aria-sort");
  const other = first === "ascending" ? "descending" : "ascending";
  const direction = now === first ? other : first;
  state.sorts.set(table.dataset.section, { column, direction });
  if (column === DEFAULT.column && direction === DEFAULT.direction) state.sorts.delete(table.dataset.section);
  sort(table, { column, direction });
  writeHash();
  announce(`Sorted by ${button.firstChild.textContent.trim()}, ${direction}`);
}

function filter() {
  const wanted = (name) => state.filters.get(name) ?? "";
  const words = wanted("q").toLowerCase();
  let left = 0;
  for (const section of document.querySelectorAll("section.table")) {
    const fits = ["dataset", "factor", "track", "policy"].every((name) => !wanted(name) || wanted(name) === section.dataset[name]);
    let shown = 0;
    for (const row of section.querySelector("table.board").tBodies[0].rows) {
      row.hidden = !((!words || row.querySelector("th").dataset.text.toLowerCase().includes(words))
        && (!wanted("backbone") || wanted("backbone") === row.dataset.backbone));
      shown += row.hidden ? 0 : 1;
    }
    section.hidden = !fits || !shown;
    left += section.hidden ? 0 : shown;
  }
  document.querySelector(".nothing").hidden = left > 0 || !boards.size;
  return left;
}
