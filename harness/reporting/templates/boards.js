// Sorting, unfolding and filtering the tables. A table sorts its methods by the mean at the chosen rule, each with its variants
// behind it; rows without a value stay last; equal ranks go by All; other equal rows keep the report's order.
function headerOf(table, column) {
  return [...(table?.tHead.rows[0].cells ?? [])].find((cell) => cell.querySelector("button").dataset.column === column);
}

function keyOf(cell) {
  if (cell.dataset.text !== undefined) return cell.dataset.text.toLowerCase();
  const holder = cell.dataset.value !== undefined ? cell : cell.querySelector(`[data-rule="${state.selection}"]`);
  return holder?.dataset.value === undefined ? null : Number(holder.dataset.value);
}

// The rows of each method: its own one first.
function familiesOf(table) {
  table.families ??= [...table.tBodies[0].rows].reduce((found, row) => {
    if (row.classList.contains("variant")) found.at(-1).push(row);
    else found.push([row]);
    return found;
  }, []);
  return table.families;
}

function sort(table, { column, direction }) {
  const header = headerOf(table, column);
  const sign = direction === "ascending" ? 1 : -1;
  const by = (items, rowOf, { cellIndex }, up) => {
    const keyed = items.map((item) => [keyOf(rowOf(item).cells[cellIndex]), item]);
    keyed.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return a < b ? -up : a > b ? up : 0;
    });
    return keyed.map(([, item]) => item);
  };
  const means = column === "rank" && headerOf(table, "all");
  const ordered = (items, rowOf) => by(means ? by(items, rowOf, means, -sign) : items, rowOf, header, sign);
  const families = ordered(familiesOf(table), ([head]) => head);
  table.tBodies[0].append(...families.flatMap(([head, ...variants]) => [head, ...ordered(variants, (row) => row)]));
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

const matching = new Set(); // keys of the rows that the search and the backbone leave over; charts draw no others

// A method is left over if any of its rows is; a variant shows when it is unfolded, or when it alone was searched for.
function filterTable(section) {
  const backbone = state.filters.get("backbone");
  const left = (row) => fits(`${row.dataset.find} ${section.dataset.find}`) && (!backbone || backbone === row.dataset.backbone);
  let shown = 0;
  for (const [head, ...variants] of familiesOf(section.querySelector("table.board"))) {
    const found = [head, ...variants].filter(left);
    const open = head.querySelector(".unfold")?.getAttribute("aria-expanded") === "true";
    head.hidden = !found.length;
    for (const row of variants) row.hidden = !found.includes(row) || !(open || !found.includes(head));
    for (const row of found) matching.add(row.dataset.key);
    shown += found.length;
  }
  return shown;
}

function onUnfold(button) {
  button.setAttribute("aria-expanded", button.getAttribute("aria-expanded") !== "true");
  filter();
}
