// Looks up the path for the numbers on the sliders and draws it. It knows no formula of an optimizer: all paths
// are in live.json, which `python -m tests.gallery` makes.
"use strict";

(async () => {
  const root = document.getElementById("live");
  const SIDE = 1000;

  const made = (tag, attributes = {}, ...children) => {
    const svg = ["svg", "path", "circle", "text", "g", "title"].includes(tag);
    const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  let data;
  try {
    const answer = await fetch(root.dataset.source);
    if (!answer.ok) throw new Error(answer.status);
    data = await answer.json();
  } catch (error) {
    return; // what the page says without its data stays
  }

  // A coordinate is two letters: a whole number over three times the frame.
  const places = (text, frame) => {
    const found = [];
    const number = (i) => data.letters.indexOf(text[i]) * 64 + data.letters.indexOf(text[i + 1]);
    const share = (i) => (number(i) / data.most) * 3 - 1;
    for (let i = 0; i < text.length; i += 4) found.push([share(i), share(i + 2)]);
    return found.map(([x, y]) => ({
      at: [frame[0][0] + x * (frame[0][1] - frame[0][0]), frame[1][0] + y * (frame[1][1] - frame[1][0])],
      drawn: [x * SIDE, (1 - y) * SIDE],
      inside: x >= 0 && x <= 1 && y >= 0 && y <= 1,
    }));
  };

  const row = (id, name, control) => {
    const says = made("output", { for: id });
    control.id = id;
    return { control, says, element: made("div", { class: "live-row" }, made("label", { for: id }, name), says, control) };
  };
  const choice = (id, name, options) => {
    const control = made("select");
    options.forEach((option, i) => control.append(made("option", { value: i }, option)));
    return row(id, name, control);
  };
  const slider = (id, name, most, value) => {
    const control = made("input", { type: "range", min: 0, max: most, step: 1 });
    control.value = value;
    return row(id, name, control);
  };

  const optimizer = choice("live-optimizer", "Optimizer", data.optimizers.map((one) => one.name));
  const func = choice("live-function", "Function", data.functions.map((one) => one.title));
  const steps = slider("live-steps", "steps", data.steps, data.steps);
  const numbers = made("div", { class: "live-controls", role: "group", "aria-label": "Numbers of the optimizer" });
  const contours = made("g"), ticks = made("g", { class: "live-ticks", "aria-hidden": "true" });
  const path = made("path", { class: "live-path", id: "live-path" }), dots = made("g");
  const title = made("title");
  const svg = made("svg", { viewBox: `0 0 ${SIDE} ${SIDE}`, role: "img" }, title, contours, ticks, path, dots);
  const says = made("p", { class: "live-says", role: "status" });
  const code = made("pre", { class: "live-code", tabindex: 0, "aria-label": "The code of this optimizer" });
  root.replaceChildren(
    made("figure", { class: "live-picture" }, svg, says),
    made("div", { class: "live-controls" }, optimizer.element, func.element, numbers, steps.element),
    code,
  );

  let sliders = [];
  const number = (x) => x.toFixed(2).replace("-0.00", "0.00");
  const chosen = () => data.optimizers[optimizer.control.value];

  const newOptimizer = () => {
    const before = Object.fromEntries(sliders.map((one) => [one.name, one.values[one.control.value]]));
    sliders = chosen().numbers.map((one) => {
      // What the last optimizer had too stays as it is, if it can.
      const kept = one.values.indexOf(before[one.name]);
      const made = slider(`live-${one.name}`, one.name, one.values.length - 1, kept < 0 ? one.start : kept);
      made.control.addEventListener("input", draw);
      return { ...made, ...one };
    });
    numbers.replaceChildren(...sliders.map((one) => one.element));
    for (const formula of document.querySelectorAll(".live-formula"))
      formula.hidden = !formula.classList.contains(`live-${chosen().name}`);
    draw();
  };

  const newFunction = () => {
    const { contours: lines, frame } = data.functions[func.control.value];
    contours.replaceChildren(...lines.map((d) => made("path", { class: "live-contour", d })));
    const [[left, right], [bottom, top]] = frame;
    ticks.replaceChildren(
      made("text", { x: 12, y: SIDE - 52 }, `y = ${bottom}`),
      made("text", { x: 12, y: 38 }, `y = ${top}`),
      made("text", { x: 12, y: SIDE - 14 }, `x = ${left}`),
      made("text", { x: SIDE - 12, y: SIDE - 14, "text-anchor": "end" }, `x = ${right}`),
    );
    draw();
  };

  function draw() {
    const one = chosen(), which = func.control.value, shown = data.functions[which];
    const index = sliders.reduce((sum, s) => sum * s.values.length + Number(s.control.value), 0);
    for (const s of sliders) {
      s.says.value = s.values[s.control.value];
      s.control.setAttribute("aria-valuetext", s.says.value);
    }
    const wanted = Number(steps.control.value);
    steps.says.value = String(wanted);
    const all = places(one.paths[which][index], shown.frame);
    const seen = all.slice(0, wanted + 1);
    path.setAttribute("d", "M" + seen.map(({ drawn }) => drawn.map((x) => x.toFixed(1)).join(" ")).join("L"));
    const circle = ({ drawn: [cx, cy] }, attributes) => made("circle", { cx, cy, ...attributes });
    const end = seen[seen.length - 1];
    dots.replaceChildren(
      ...seen.slice(1).map((place) => circle(place, { class: "live-step", r: 5 })),
      circle(seen[0], { class: "live-start", r: 11 }),
      circle(end, { class: "live-step", r: 13 }),
    );
    const where = `(${end.at.map(number).join(", ")})`;
    const lost = all.length <= wanted;
    says.textContent = lost
      ? `It leaves the picture, and is not followed after step ${all.length - 1}. The loss began at ${shown.loss}.`
      : wanted < data.steps
        ? `After ${wanted} steps it is at ${where}${end.inside ? "" : ", out of the picture"}.`
        : `After ${wanted} steps it is at ${where}${end.inside ? "" : ", out of the picture"}, ` +
          `and the loss went from ${shown.loss} to ${one.losses[which][index]}.`;
    title.textContent = `The path of ${one.name} on the function ${shown.title}`;
    code.textContent = `gradtx.${one.code[index]}`;
  }

  optimizer.control.value = 1;
  func.control.value = 0;
  optimizer.control.addEventListener("change", newOptimizer);
  func.control.addEventListener("change", newFunction);
  steps.control.addEventListener("input", draw);
  newOptimizer();
  newFunction();
})();
