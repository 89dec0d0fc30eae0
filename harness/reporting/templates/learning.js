// Curves of both stages over the epochs. Where stage 2 begins, a line starts anew at a bar.
const CURVES = { test: ["test accuracy", " %"], val: ["validation accuracy", " %"], loss: ["training loss", ""] };

class Learning extends Picture {
  compose(data) {
    const name = this.find("[name=curve]").value;
    const [what, unit] = CURVES[name];
    const shown = gallery.lines.map((one) => ({ one, parts: stagesOf(one, name) })).filter(({ parts }) => parts.some((part) => part.x.length));
    if (!shown.length) return { empty: "No row is chosen, or none of them has this curve stored." };
    const lacking = shown.filter(({ parts }) => !parts[0].x.length).map(({ one }) => one.name);
    const reading = `${what[0].toUpperCase()}${what.slice(1)} over the epochs: ${shown.map(({ one, parts }) => `${one.name} ${told(parts, unit)}`).join("; ")}.${lacking.length ? ` The curve of stage 1 is not stored of ${lacking.join(", ")}.` : ""}${name === "loss" ? " Losses of different methods and stages have no common scale." : ""}`;
    const lines = shown.flatMap(({ one, parts }) => parts.flatMap((part, stage) => part.x.map((epoch, at) => [one.name, String(stage + 1), String(part.own[at]), String(part.y[at]), String(part.spread[at] ?? "")])));
    return { ...this.drawn(shown, name, what, unit), reading, lines, head: ["Row", "Stage", "Epoch of the stage", `${what[0].toUpperCase()}${what.slice(1)}`, "±"] };
  }

  drawn(shown, name, what, unit) {
    const [tall, legend] = keys(shown.map(({ one }) => ({ name: one.name, index: gallery.lines.indexOf(one) })), { left: 2, width: this.width });
    const box = this.box({ top: tall + 34, left: 46 });
    box.height += tall;
    const [right, foot] = [box.width - box.right, box.height - box.bottom];
    const all = shown.flatMap(({ parts }) => parts);
    const high = all.flatMap(({ y, spread }) => y.map((value, at) => value + (spread[at] ?? 0)));
    const low = all.flatMap(({ y, spread }) => y.map((value, at) => value - (spread[at] ?? 0)));
    const x = linear([0, Math.max(1, ...all.flatMap((part) => part.x))], [box.left, right]);
    const y = linear(around([...low, ...high], 0.04, 0, name === "loss" ? Infinity : 100), [foot, box.top]);
    const parts = axes(box, { x: x.ticks(8).map((at) => [x(at), String(at)]), y: y.ticks(6).map((at) => [y(at), String(at)]), xTitle: "epoch, counted from the start of stage 1", yTitle: `${what}${unit && " (%)"}` });
    const marks = [];
    shown.forEach(({ one, parts: stages }, line) => {
      const { colour, dash, marker } = styleOf(gallery.lines.indexOf(one));
      const group = svg("g", { class: colour });
      stages.forEach((stage, at) => {
        const up = stage.x.map((epoch, i) => `${x(epoch)} ${y(stage.y[i] + stage.spread[i])}`);
        const down = stage.x.map((epoch, i) => `${x(epoch)} ${y(stage.y[i] - stage.spread[i])}`).reverse();
        if (stage.spread.some((of) => of > 0) && stage.x.length > 1) group.append(svg("path", { class: "pic-band", d: `M${[...up, ...down].join("L")}Z` }));
        const points = stage.x.map((epoch, i) => `${x(epoch)} ${y(stage.y[i])}`);
        if (points.length > 1) group.append(svg("path", { class: `pic-line ${dash}`, d: `M${points.join("L")}` }));
        if (at && points.length) group.append(svg("path", { class: "pic-start", d: `M${x(stage.x[0])} ${round(y(stage.y[0]) - 9)}v18` }));
        if (points.length) group.append(svg("path", { class: "pic-mark", d: marker, transform: `translate(${points.at(-1)})` }));
        stage.x.forEach((epoch, i) => marks.push({ x: x(epoch), y: y(stage.y[i]), line, text: `${one.name}, ${stages.length > 1 ? `stage ${at + 1}, ` : ""}epoch ${stage.own[i]}: ${figure(stage.y[i], unit)}${stage.spread[i] ? ` ± ${figure(stage.spread[i], unit)}` : ""}${unit}` }));
      });
      parts.push(group);
    });
    parts.push(...legend);
    return { parts, marks, height: box.height };
  }
}

// Accuracies as the boards have them, losses to three digits.
const figure = (value, unit) => (unit ? round(value).toFixed(1) : short(value));

function told(parts, unit) {
  const ends = parts.map((part) => part.y.at(-1));
  if (ends.length === 1) return `${figure(ends[0], unit)}${unit}`;
  return `${ends[0] === undefined ? "" : `${figure(ends[0], unit)}${unit} after stage 1, `}${ends[1] === undefined ? "nothing stored of stage 2" : `${figure(ends[1], unit)}${unit} after stage 2`}`;
}
