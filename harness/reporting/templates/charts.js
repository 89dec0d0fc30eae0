// What pictures anywhere on the page share: nodes, markers, and the data of each board.
const MARKERS = [
  "M4 0A4 4 0 1 1-4 0A4 4 0 1 1 4 0Z", // circle
  "M-3.6-3.6H3.6V3.6H-3.6Z", // square
  "M0-5 4.6 3.4H-4.6Z", // triangle
  "M0-5.2 5.2 0 0 5.2-5.2 0Z", // diamond
  "M0 5 4.6-3.4H-4.6Z", // triangle down
  "M-1.6-5H1.6V-1.6H5V1.6H1.6V5H-1.6V1.6H-5V-1.6H-1.6Z", // plus
];

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function html(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function save(name, type, text) {
  const link = html("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}

const styleOf = (index) => ({
  colour: `s${index % MARKERS.length}`,
  dash: `dash${Math.floor(index / MARKERS.length) % 4}`,
  marker: MARKERS[index % MARKERS.length],
});
const round = (value) => { // to a tenth; a tie goes to the even digit, as in all other numbers of the page
  const tie = Number.isInteger(value * 4) && !Number.isInteger(value * 2), below = Math.floor(value * 10);
  return (tie ? below + (below & 1) : Math.round(value * 10)) / 10;
};

// Slug -> {data}: what a board's pictures, comparison and methods are drawn from.
const charts = new Map([...document.querySelectorAll("script[data-board]")].map((node) => [node.dataset.board, { data: JSON.parse(node.textContent) }]));

// The selection rule that a board is drawn at: the chosen one, or the first where no row of the board has a value at it.
const lacksOf = (board) => document.getElementById(board)?.dataset.lacks.split(" ") ?? [];
const ruleOf = (board) => (lacksOf(board).includes(state.selection) ? DEFAULT.selection : state.selection);
const lackOf = (board, rule) => `${document.querySelector(`#${CSS.escape(board)} > .notice[data-rule="${rule}"]`).textContent.replace(" Choose another epoch.", "")}${rule === state.selection ? ` The ${titleOf(DEFAULT.selection).toLowerCase()} is shown.` : ""}`;
const titleOf = (rule) => radios.find(({ value }) => value === rule).nextElementSibling.textContent;

// A curve of a row, one part a stage: epochs counted from the run's start, values, deviations, and the stage's own epochs.
// Of a stage without epochs there is the accuracy that it ends with.
function stagesOf(one, name) {
  const part = (curve, start) => ({ x: (curve?.[0] ?? []).map((epoch) => epoch + start), y: curve?.[1] ?? [], spread: curve?.[2] ?? [], own: curve?.[0] ?? [] });
  if (one.stages < 2) return [part(one.curves[name], 0)];
  const start = one.first.loss?.[0].at(-1) ?? one.planned[0] ?? 0;
  const second = part(one.curves[name], start);
  const final = one.scores.last.all;
  if (!second.x.length && name === "test" && final) Object.assign(second, { x: [start], y: [Number(final[0])], spread: final[1] ? [Number(final[1])] : [], own: [0] });
  return [part(one.first[name], 0), second];
}

function meanOf(values) {
  const known = values.filter((value) => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

// Where to draw the values of the classes in a small picture; of many classes, means of neighbours in frequency.
function perClass(values) {
  const size = values.length > 40 ? Math.ceil(values.length / 20) : 1;
  const firsts = values.map((_, at) => at).filter((at) => at % size === 0);
  return { x: firsts.map((at) => at + (Math.min(size, values.length - at) - 1) / 2), y: firsts.map((at) => meanOf(values.slice(at, at + size))) };
}
