// A picture: a drawing with a cursor (mouse, touch, arrow keys), what it shows in a sentence and as a table, and files of it.
// A subclass composes {parts, marks, reading, head, lines}, or {empty: why there is nothing to draw}. A mark is a place that
// the cursor can be at: {x, y, text, key: the row it stands for, line: what left and right stay on, box: a cell's corners}.
class Picture {
  constructor(name) {
    this.name = name;
    this.figure = document.querySelector(`figure[data-picture="${name}"]`);
    this.find = (selector) => this.figure.querySelector(selector);
    [this.plot, this.tip, this.details] = [".pic-plot", ".pic-tip", "details"].map(this.find);
    this.title = this.find("figcaption").textContent;
    this.marks = [];
    this.at = -1;
    this.plot.addEventListener("pointermove", (event) => this.goTo(this.nearest(event)));
    this.plot.addEventListener("pointerdown", (event) => { // a finger's first touch shows, its second one picks
      const at = this.nearest(event);
      this.picks = event.pointerType === "mouse" || at === this.at;
      this.goTo(at);
    });
    this.plot.addEventListener("pointerleave", (event) => event.pointerType === "mouse" && document.activeElement !== this.plot && this.goTo(-1));
    this.plot.addEventListener("click", () => this.picks && this.pick());
    this.plot.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !this.onKey(event.key)) return;
      event.preventDefault();
      if (/^(Arrow|Home|End)/.test(event.key) && this.marks[this.at]) announce(this.marks[this.at].text);
    });
    this.plot.addEventListener("focus", () => this.at < 0 && this.plot.matches(":focus-visible") && this.goTo(0));
    this.plot.addEventListener("blur", () => this.goTo(-1));
    this.details.addEventListener("toggle", () => this.fillTable());
    for (const control of this.figure.querySelectorAll(".pic-tools :is(select, input)")) control.addEventListener("change", () => this.draw());
    const file = (kind) => `${gallery.board}-${this.name}.${kind}`;
    this.find("[data-file=svg]").addEventListener("click", () => save(file("svg"), "image/svg+xml", this.standalone()));
    this.find("[data-file=csv]").addEventListener("click", () => save(file("csv"), "text/csv", `${FORMS.csv([this.found.head, ...this.found.lines])}\n`));
    new ResizeObserver(() => this.plot.clientWidth !== this.width && this.draw()).observe(this.plot);
  }

  box(margins = {}) {
    return { width: this.width, height: this.width < 500 ? 330 : 400, left: 40, right: 14, top: 24, bottom: 44, ...margins };
  }

  draw() {
    this.width = this.plot.clientWidth; // none while the picture is hidden
    if (!this.width || !gallery.data) return;
    this.found = this.compose(gallery.data, gallery.rule);
    const { empty, parts = [], marks = [], reading, height = this.box().height } = this.found;
    this.marks = marks;
    this.cursor = svg("path", { class: "pic-cursor" });
    this.drawing = svg("svg", { viewBox: `0 0 ${this.width} ${height}`, width: this.width, height, role: "img", "aria-label": `${this.title}. ${reading}` }, ...parts, this.cursor);
    this.plot.replaceChildren(empty ? html("p", { class: "pic-empty" }, empty) : this.drawing);
    this.find(".pic-reading").textContent = empty ? "" : reading;
    for (const part of this.figure.querySelectorAll("details, .pic-files")) part.hidden = Boolean(empty);
    this.goTo(-1);
    this.fillTable();
  }

  nearest(event) {
    const { left, top } = this.plot.getBoundingClientRect();
    const [x, y] = [event.clientX - left, event.clientY - top];
    const far = (mark) => (mark.box ? (x >= mark.box[0] && y >= mark.box[1] && x < mark.box[2] && y < mark.box[3] ? 0 : Infinity) : (mark.x - x) ** 2 + (mark.y - y) ** 2);
    let found = -1;
    let least = 40 ** 2;
    this.marks.forEach((mark, at) => { if (far(mark) < least) [found, least] = [at, far(mark)]; });
    return found;
  }

  goTo(at) {
    this.at = at;
    const mark = this.marks[at];
    this.tip.hidden = !mark;
    if (!this.cursor || !mark) return this.cursor?.setAttribute("d", "");
    const { x, y, box } = mark;
    this.cursor.setAttribute("d", box ? `M${box[0]} ${box[1]}H${box[2]}V${box[3]}H${box[0]}Z` : `M${x - 8} ${y}a8 8 0 1 1 16 0a8 8 0 1 1-16 0Z`);
    if (this.tip.textContent !== mark.text) this.tip.textContent = mark.text;
    const wide = this.tip.offsetWidth;
    this.tip.style.left = `${Math.max(0, Math.min(x - wide / 2, this.width - wide))}px`;
    this.tip.style.top = `${y < this.tip.offsetHeight + 24 ? (box ? box[3] + 6 : y + 14) : (box ? box[1] - 6 : y - 14) - this.tip.offsetHeight}px`;
  }

  onKey(key) {
    const now = this.marks[this.at];
    if (key === "Escape") this.goTo(-1);
    else if (key === "Enter" || key === " ") this.pick();
    else if (key === "Home" || key === "End") this.goTo(key === "Home" ? 0 : this.marks.length - 1);
    else if (key.startsWith("Arrow") && now) this.goTo(this.marks.indexOf(this.beside(now, key) ?? now));
    else if (key.startsWith("Arrow")) this.goTo(this.marks.length ? 0 : -1);
    else return false;
    return true;
  }

  // The next mark to a side: left and right along a line, up and down across lines; points without lines, to all sides.
  beside(now, key) {
    const across = key === "ArrowUp" || key === "ArrowDown";
    const place = (mark) => (across ? mark.y : mark.x);
    const open = (mark) => mark === now || (across ? now.line === undefined || Math.abs(mark.x - now.x) < 1.5 : mark.line === now.line);
    const all = this.marks.filter(open).sort((a, b) => place(a) - place(b));
    return all[all.indexOf(now) + (key === "ArrowLeft" || key === "ArrowUp" ? -1 : 1)];
  }

  pick() {
    const mark = this.marks[this.at];
    if (!mark?.key) return;
    const at = this.at;
    gallery.toggle(mark.key);
    this.goTo(at);
  }

  fillTable() {
    if (!this.details.open || !this.found || this.found.empty) return;
    const { head, lines } = this.found;
    const numeric = head.map((_, at) => lines.every((line) => /^[\u2212-]?[\d.,]*$/.test(line[at])));
    const cell = (text, at, name, scope) => html(name, { ...(numeric[at] ? { class: "number" } : {}), ...(scope ? { scope } : {}) }, text);
    this.details.querySelector(".scroll").replaceChildren(html("table", {},
      html("thead", {}, html("tr", {}, ...head.map((text, at) => cell(text, at, "th", "col")))),
      html("tbody", {}, ...lines.map((line) => html("tr", {}, ...line.map((text, at) => (at ? cell(text, at, "td") : cell(text, at, "th", "row"))))))));
  }

  // The drawing as a file of its own: on white, with the page's light colours written out, and its title above it.
  standalone() {
    const rules = [...document.styleSheets].flatMap((sheet) => [...sheet.cssRules]);
    const light = rules.find((rule) => rule.selectorText === ":root").style;
    const used = rules.filter((rule) => /^\.(pic-(?!plot|tip)|s\d|dash\d)/.test(rule.selectorText ?? "") && !/ [a-z]/.test(rule.selectorText));
    const style = used.map((rule) => rule.cssText).join("\n").replaceAll(/var\((--[\w-]+)\)/g, (_, name) => light.getPropertyValue(name).trim());
    const copy = this.drawing.cloneNode(true);
    const [width, height] = ["width", "height"].map((name) => Number(copy.getAttribute(name)));
    for (const [name, value] of Object.entries({ xmlns: "http://www.w3.org/2000/svg", viewBox: `0 -30 ${width} ${height + 30}`, height: height + 30, "font-family": "sans-serif", "font-size": 12 })) copy.setAttribute(name, value);
    copy.querySelector(".pic-cursor").remove();
    copy.prepend(svg("title", {}, copy.getAttribute("aria-label")), svg("style", {}, style), svg("rect", { y: -30, width, height: height + 30, fill: "#fff" }),
      svg("text", { class: "pic-label", x: 2, y: -12, "font-weight": "bold" }, `${this.title}: ${gallery.data.title}, ${gallery.rule}`));
    return new XMLSerializer().serializeToString(copy);
  }
}
