// Copies tables as they are shown (rows, order, selection rule) as Markdown, LaTeX or CSV, and commands as text; saves the lines
// of a board in `tables/leaderboard.csv` as a file. CSV has a number a cell: the parts of a cell stand in columns of their own.
const LATEX = { "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "\u2212": "$-$", "<": "\\textless{}", ">": "\\textgreater{}", "|": "\\textbar{}" };
const FORMS = {
  md: (rows) => {
    const line = (cells) => `| ${cells.map((text) => text.replaceAll(/([\\`*_{}[\]|~$#<>])/g, "\\$1")).join(" | ")} |`;
    return [line(rows[0]), `|${rows[0].map((_, at) => (at < 2 ? "---" : "---:")).join("|")}|`, ...rows.slice(1).map(line)].join("\n");
  },
  tex: (rows) => {
    const line = (cells) => `${cells.map((text) => text.replaceAll(/[&%$#_{}]/g, "\\$&").replaceAll(/\\(?![&%$#_{}])|[~^±\u2212<>|]/g, (c) => LATEX[c])).join(" & ")} \\\\`;
    return [`\\begin{tabular}{${rows[0].map((_, at) => (at < 2 ? "l" : "r")).join("")}}`, "\\toprule", line(rows[0]), "\\midrule",
      ...rows.slice(1).map(line), "\\bottomrule", "\\end{tabular}"].join("\n");
  },
  // A text that a spreadsheet would take for a formula gets an apostrophe; numbers stay numbers.
  csv: (rows) => rows.map((cells) => cells.map((text) => {
    const plain = text.replaceAll("\u2212", "-");
    if (plain === "-") return "";
    const safe = /^[=+@-]/.test(plain) && !/^[+-]?[\d.]+$/.test(plain) ? `'${plain}` : plain;
    return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
  }).join(",")).join("\n"),
};

function textOf(cell) {
  const drawn = cell.querySelector("svg[role=img]"); // an interval
  const title = cell.querySelector("button[data-column]"); // without the ticks of an axis
  return (drawn?.getAttribute("aria-label") ?? (title ?? cell).innerText).replaceAll(/\s+/g, " ").trim();
}

function rowsOf(table, read = (cell, text) => text) {
  return [...table.rows].filter((row) => !row.hidden).map((row) => [...row.cells].filter((cell) => cell.offsetWidth).map((cell) => {
    const spans = [...cell.querySelectorAll(`.r[data-rule="${state.selection}"] > .mean, .r[data-rule="${state.selection}"] > .std`)];
    const shown = spans.length ? spans.map((span) => span.textContent.trim()).filter(Boolean).join(" ") : textOf(cell);
    return read(cell, cell.dataset.text ?? shown);
  }));
}

// A cell as CSV has it: its parts, by the ends of their columns' titles.
const PARTS = { published: ".published-value", measured: ".measured-value > a", std: ".std", n: ".measured-value > small", difference: ".delta", status: ".badge", note: ".why" };
const INTERVAL = /^(?<mean>[+\u2212]?[\d.]+)(?: \((?<low>\S+) to (?<high>[^\s)]+))?[, ]*(?<note>[^)]*)\)?$/;
function partsOf(cell, text) {
  const of = (selector) => all(selector, cell).map((one) => one.innerText.trim().replace(/^± |^\((.*)\)$/, "$1")).join("; ");
  if (cell.matches(".paper-cell")) return Object.fromEntries(Object.entries(PARTS).map(([name, selector]) => [name, of(selector)]));
  const { mean, ...others } = (cell.matches(".contrasts td.number") && text.match(INTERVAL)?.groups) || { mean: text };
  return { "": mean, ...others };
}
function spread([head, ...body]) {
  const columns = head.flatMap((_, at) => {
    const names = [...new Set(body.flatMap((cells) => Object.keys(cells[at] ?? {})))].filter((name) => body.some((cells) => cells[at]?.[name]));
    return (names.length ? names : [""]).map((name) => [at, name]);
  });
  return [columns.map(([at, name]) => `${head[at][""]} ${name}`.trim()), ...body.map((cells) => columns.map(([at, name]) => cells[at]?.[name] ?? ""))];
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch { // a page opened from disk may not be allowed to
    const area = html("textarea", { "aria-hidden": "true", class: "announce" });
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const before = button.dataset.title ?? button.textContent;
  button.dataset.title = before;
  button.textContent = "Copied";
  announce("Copied");
  setTimeout(() => { button.textContent = before; }, 1500);
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-copy]");
  if (!button) return;
  const kind = button.dataset.copy;
  if (kind === "text") copy(button.closest("p").querySelector("code").textContent, button);
  else if (kind === "file") save(`${state.board}.csv`, "text/csv", charts.get(state.board).data.csv);
  else {
    const tables = all(":scope > .scroll:not([hidden]) > table", button.closest("p").parentElement);
    const read = (reader) => tables.flatMap((table, at) => rowsOf(table, reader).slice(at && 1)); // one head
    copy(`${FORMS[kind](kind === "csv" ? spread(read(partsOf)) : read())}\n`, button);
  }
});
