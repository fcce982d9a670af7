// What the page is made of: elements, images of a few pixels, bars and strips.

import { colour, tinted } from "drawing";

export const byId = (id) => document.getElementById(id);

/** An element with properties and children; text is never taken for HTML. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Shows overlaid digits, each with values of 0 to 255 and in its own colour, on `canvas`. */
export function paint(canvas, layers, [height, width], colours) {
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d");
  context.globalCompositeOperation = "lighter";
  layers.forEach((layer, number) => {
    context.drawImage(tinted(layer, height, width, colours?.[number] ?? colour(number, layers.length)), 0, 0);
  });
}

export function figure(layers, size, caption, colours) {
  const canvas = make("canvas", { role: "img", ariaLabel: caption });
  paint(canvas, layers, size, colours);
  return make("figure", {}, canvas, make("figcaption", {}, caption));
}

/** A row of cells, one a value, the stronger the larger: `low` is empty, `high` is full. */
export function strip(values, [low, high], label) {
  const row = make("div", { className: "strip", role: "img" });
  row.ariaLabel = `${label}: ${Array.from(values, (value) => value.toPrecision(3)).join(", ")}`;
  values.forEach((value, k) => {
    const share = high > low ? (value - low) / (high - low) : 0;
    const cell = make("i", { title: `type ${k + 1}: ${value.toPrecision(3)}` });
    cell.style.background = `color-mix(in srgb, var(--accent) ${Math.round(100 * share)}%, var(--card))`;
    row.append(cell);
  });
  return row;
}

/** A column for each value of 0 to 1, side by side. */
export function columns(values, label) {
  const row = make("div", { className: "columns", role: "img" });
  row.ariaLabel = `Lengths by ${label}: ${Array.from(values, (value) => value.toFixed(3)).join(", ")}`;
  for (const value of values) {
    const cell = make("i");
    cell.style.height = `${100 * Math.min(value, 1)}%`;
    row.append(cell);
  }
  return row;
}

export function table(element, head, rows) {
  const titles = head.map((text) => make("th", { scope: "col" }, text));
  const body = rows.map((cells) =>
    make("tr", {}, ...cells.map((cell, k) => (cell instanceof HTMLTableCellElement ? cell : make(k ? "td" : "th", k ? {} : { scope: "row" }, cell)))),
  );
  element.replaceChildren(make("thead", {}, make("tr", {}, ...titles)), make("tbody", {}, ...body));
}
