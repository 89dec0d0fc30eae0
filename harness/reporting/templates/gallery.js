// All pictures of one board. Other parts of the page steer them by an event on the document,
//   new CustomEvent("ltbench:filter", {detail: {board, rows}})
// board: slug of the board to show; rows: keys of the rows to show, of any boards, or null for all. What is left out stays.
const MOST_LINES = MARKERS.length;

class Gallery {
  constructor(section) {
    this.section = section;
    this.visible = null;
    this.chosen = new Map(); // board -> keys of the rows drawn as lines
    this.adding = section.querySelector("[name=line]");
    this.board = null;
    this.lines = [];
    this.variants = section.querySelector("[name=variants]");
    this.variants.addEventListener("change", () => this.draw());
    this.adding.addEventListener("change", () => this.adding.value && this.toggle(this.adding.value));
  }

  get data() { return charts.get(this.board)?.data; }

  get rule() { return ruleOf(this.board); }

  get rows() { return this.data.series.filter((one) => !this.visible || this.visible.has(one.key)); }

  // The rows drawn as lines: those chosen, as far as filters show them; before anything is chosen, and where nothing of it
  // is shown, the first ones.
  current() {
    const keys = this.chosen.get(this.board);
    const found = keys?.map((key) => this.rows.find((one) => one.key === key)).filter(Boolean);
    return found && (found.length || !keys.length) ? found : this.first();
  }

  // What is worth a look first: the best over all images, cross-entropy, the best of the rarest group and of the most frequent.
  first() {
    const own = onePerMethod(this.rows.map((one) => ({ one }))).map(({ one }) => one);
    const best = (key) => own.filter((one) => scoreOf(one, this.rule, key) !== null).sort((a, b) => scoreOf(b, this.rule, key) - scoreOf(a, this.rule, key))[0];
    const found = [best("all"), this.rows.find((one) => one.key === this.data.reference), best("few") ?? best("medium"), best("many")];
    return [...new Set(found.filter(Boolean))];
  }

  show({ board = this.board, rows }) {
    if (charts.has(board)) this.board = board;
    if (rows !== undefined) this.visible = rows && new Set(rows);
    if (this.data) this.draw();
  }

  toggle(key) {
    const keys = this.lines.map((one) => one.key);
    const at = keys.indexOf(key);
    if (at >= 0) keys.splice(at, 1);
    else keys.push(key);
    this.chosen.set(this.board, keys.slice(-MOST_LINES));
    const { name } = this.data.series.find((one) => one.key === key);
    this.draw();
    announce(`${name} is ${at >= 0 ? "no longer " : ""}drawn as a line`);
  }

  draw() {
    this.lines = this.current();
    const free = this.rows.filter((one) => !this.lines.includes(one));
    this.adding.replaceChildren(html("option", { value: "" }, "add a row"), ...free.map((one) => html("option", { value: one.key }, one.name)));
    this.section.querySelector(".pic-chosen").replaceChildren(...this.lines.map((one, index) => {
      const { colour, marker } = styleOf(index);
      const button = html("button", { type: "button", title: "no longer draw this row" },
        svg("svg", { viewBox: "-8 -8 16 16", class: colour, "aria-hidden": "true" }, svg("path", { d: marker, class: "pic-mark" })), `${one.name} \u00d7`);
      button.addEventListener("click", () => { this.toggle(one.key); this.adding.focus(); });
      return html("li", {}, button);
    }));
    for (const picture of this.pictures) picture.draw();
  }
}

const gallery = document.querySelector("#pictures") && new Gallery(document.querySelector("#pictures"));
if (gallery) {
  gallery.pictures = [new ManyFew("many-few"), new CostAccuracy(), new Frequency(), new Learning("learning"), new ConfusionMap()];
  document.addEventListener("ltbench:filter", ({ detail }) => gallery.show(detail));
}
