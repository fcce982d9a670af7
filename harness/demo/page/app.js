// The page: what is drawn goes through the network here and, if there is a server, through every framework there.

import { CapsNet, lengthsOf, ranked, readSafetensors } from "capsnet";
import { Pad, colour } from "drawing";
import { byId, columns, figure, make, paint, strip, table } from "pictures";

const shown = JSON.parse(byId("data").textContent);
const { model, classes: names, framing } = shown;
const size = model.image.slice(0, 2);
const bytes = (text) => Uint8Array.from(atob(text), (each) => each.charCodeAt(0));
const text = (array) => btoa(Array.from(array, (each) => String.fromCharCode(each)).join(""));
const net = new CapsNet(model, readSafetensors(bytes(shown.weights).buffer));
const HERE = "this page";
const SLOW_MS = 80; // a forward pass that takes longer waits for the end of the stroke
const OUTPUTS = ["lengths", "digit", "coupling", "reconstruction"];
const state = { frameworks: [], local: null, answers: null, tookMs: 0, isAsking: false, isStale: false, deltas: null, which: null };

const pad = new Pad(byId("pad"), model, framing, schedule);
let isScheduled = false;

function schedule() {
  if (isScheduled || (pad.isDrawing && state.tookMs > SLOW_MS)) return;
  isScheduled = true;
  requestAnimationFrame(() => {
    isScheduled = false;
    think();
  });
}

/** The answer of this page, shown; then those of the frameworks. */
function think() {
  if (pad.isEmpty) {
    state.local = state.answers = null;
  } else {
    const layers = pad.layers();
    const began = performance.now();
    const found = net.forward(layers);
    state.tookMs = performance.now() - began;
    state.local = { layers, found, ms: state.tookMs };
  }
  showAnswer();
  showRouting();
  startMoving();
  showFrameworks();
  ask();
}

// The answer

const bars = names.map((name) => {
  const [fill, value] = [make("i"), make("span", {}, "")];
  const row = make("div", { className: "bar", role: "listitem" }, make("span", { title: name }, name), make("div", { className: "track" }, fill), value);
  byId("bars").append(row);
  return { row, fill, value };
});

function showAnswer() {
  const { local } = state;
  bars.forEach(({ row, fill, value }, j) => {
    const length = local?.found.lengths[j] ?? 0;
    fill.style.width = `${100 * Math.min(length, 1)}%`;
    value.textContent = local ? length.toFixed(3) : "";
    row.classList.toggle("wins", Boolean(local?.found.classes.includes(j)));
  });
  if (!local) {
    byId("answer").replaceChildren("Draw on the pad, or pick a test image.");
    byId("images").replaceChildren();
    return;
  }
  const { classes, lengths, reconstruction } = local.found;
  const said = classes.map((j) => names[j]).join(" and ");
  const doubt = classes.some((j) => lengths[j] < 0.5) ? "; a capsule shorter than 0.5 says that its class is not there" : "";
  const told = `capsule length ${classes.map((j) => lengths[j].toFixed(3)).join(" and ")}${doubt}`;
  byId("answer").replaceChildren(make("strong", {}, said), told);
  byId("images").replaceChildren(
    figure(local.layers, size, "what the network sees"),
    ...reconstruction.map((pixels, k) =>
      figure([pixels.map((each) => 255 * each)], size, `reconstruction of ${names[classes[k]]}`, [hues(local.layers, reconstruction)[k]]),
    ),
  );
}

/** For each reconstruction the colour of the digit that it resembles most; each colour once. */
function hues(layers, reconstructions) {
  const alike = (k, layer) => reconstructions[k].reduce((sum, value, at) => sum + value * layers[layer][at], 0);
  const orders = layers.reduce((found) => found.flatMap((order) => layers.flatMap((_, layer) => (order.includes(layer) ? [] : [[...order, layer]]))), [[]]);
  const fit = (order) => order.reduce((sum, layer, k) => sum + alike(k, layer), 0);
  return orders.reduce((a, b) => (fit(b) > fit(a) ? b : a)).map((layer) => colour(layer, layers.length));
}

// Routing

function showRouting() {
  const { local } = state;
  const most = Math.log2(model.classes + (model.none_of_the_above ? 1 : 0));
  if (!local) {
    byId("routing-said").textContent = "Each primary capsule votes for every class, and gives more to the classes that others agree on.";
    byId("routing").replaceChildren();
    byId("routing-note").textContent = "";
    return;
  }
  const { routing, classes } = local.found;
  const winner = classes[0];
  const steps = routing.map(({ c, v, agreement }) => ({
    entropy: net.entropy(c),
    length: lengthsOf(v, model.digit_dim)[winner],
    coupling: net.byType(c, winner),
    agreement: net.byType(agreement, winner),
  }));
  const range = (key) => [Math.min(...steps.flatMap((step) => [...step[key]])), Math.max(...steps.flatMap((step) => [...step[key]]))];
  const [couplings, agreements] = [range("coupling"), range("agreement")];
  const best = ranked(steps.at(-1).agreement).slice(0, 3).map((type) => type + 1);
  byId("routing-said").textContent =
    `There are ${model.primary_types} types of primary capsules. Those that agree most with ${names[winner]}: ${best.map((type) => `type ${type}`).join(", ")}. ` +
    (steps.length > 1
      ? `The couplings' entropy goes from ${steps[0].entropy.toFixed(4)} to ${steps.at(-1).entropy.toFixed(4)} bits.`
      : "With one iteration, all couplings stay even.");
  table(
    byId("routing"),
    ["iteration", "entropy, bits", `length of ${names[winner]}`, "coupling by type", "agreement by type"],
    steps.map((step, k) => [
      String(k + 1),
      step.entropy.toFixed(4),
      step.length.toFixed(3),
      strip(step.coupling, couplings, `Coupling to ${names[winner]} by type`),
      strip(step.agreement, agreements, `Agreement with ${names[winner]} by type`),
    ]),
  );
  byId("routing-note").textContent =
    `Entropy: how evenly a primary capsule divides its vote, at most ${most.toFixed(4)} bits. Coupling: the share that goes to ` +
    `${names[winner]}, ${couplings.map((each) => each.toFixed(3)).join(" to ")}; even is ${(1 / 2 ** most).toFixed(3)}. ` +
    `Agreement: the product of vote and capsule, ${agreements.map((each) => each.toFixed(4)).join(" to ")}. Means over the ` +
    `${net.grid.join("x")} places of a type; a stronger colour is more.`;
}

// The capsule, moved

const sliders = Array.from({ length: model.digit_dim }, (_, k) => {
  const input = make("input", { type: "range", min: "-0.25", max: "0.25", step: "0.01", value: "0", ariaLabel: `dimension ${k + 1}` });
  const output = make("output", {}, "0.00");
  input.addEventListener("input", () => {
    state.deltas[k] = Number(input.value);
    showMoved();
  });
  byId("sliders").append(make("label", {}, String(k + 1), input, output));
  return { input, output };
});
names.forEach((name, j) => byId("which").append(make("option", { value: String(j) }, name)));
byId("which").addEventListener("change", () => {
  state.which = Number(byId("which").value);
  resetMoves();
});
byId("reset").addEventListener("click", resetMoves);
byId("move").hidden = !model.decoder;

/** After each new drawing: from the winner, not moved. */
function startMoving() {
  state.which = state.local?.found.classes[0] ?? null;
  resetMoves();
}

function resetMoves() {
  state.deltas = new Float64Array(model.digit_dim);
  sliders.forEach(({ input }) => {
    input.value = "0";
    input.disabled = !state.local;
  });
  byId("which").disabled = byId("reset").disabled = !state.local;
  showMoved();
}

function showMoved() {
  if (!model.decoder) return;
  sliders.forEach(({ output }, k) => (output.textContent = state.deltas[k].toFixed(2)));
  const black = [new Float64Array(size[0] * size[1])];
  if (!state.local) return paint(byId("moved-image"), black, size);
  byId("which").value = String(state.which);
  const { digit } = state.local.found;
  const e = model.digit_dim;
  const capsule = digit.slice(state.which * e, (state.which + 1) * e).map((value, k) => value + state.deltas[k]);
  state.moved = net.decode(capsule, state.which);
  paint(byId("moved-image"), [state.moved.map((each) => 255 * each)], size);
}

// The frameworks

async function call(path, body) {
  const sent = body && { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, sent);
  if (!response.ok) throw new Error(`the server refuses: ${response.status}`);
  return (await response.json()).frameworks;
}

/** One request at a time; what was drawn meanwhile is asked about after it. */
async function ask() {
  if (!shown.served || !state.local) return;
  if (state.isAsking) {
    state.isStale = true;
    return;
  }
  state.isAsking = true;
  const { local } = state;
  try {
    const frameworks = await call("/api/answer", { layers: local.layers.map(text) });
    state.frameworks = frameworks;
    if (state.local) state.answers = { local, each: frameworks.filter((each) => each.outputs).map(decoded) };
    state.problem = "";
  } catch (error) {
    state.problem = `No answer: ${error.message}. Has capsbench demo ended?`;
  }
  state.isAsking = false;
  showFrameworks();
  if (state.isStale) {
    state.isStale = false;
    ask();
  }
}

function decoded({ name, precision, ms, outputs, is_reference }) {
  const arrays = Object.fromEntries(OUTPUTS.map((key) => [key, outputs[key] ? new Float64Array(bytes(outputs[key]).buffer) : new Float64Array(0)]));
  return { name, label: is_reference ? `${name}, float64` : name, precision, ms, is_reference, arrays };
}

/** This page's own answer in the same form. */
function own({ found, ms }) {
  const reconstruction = Float64Array.from(found.reconstruction.flatMap((each) => [...each]));
  return { name: HERE, label: HERE, ms, arrays: { lengths: found.lengths, digit: found.digit, coupling: found.routing.at(-1).c, reconstruction } };
}

function farthest(a, b) {
  let most = 0;
  for (const key of OUTPUTS) a.arrays[key].forEach((value, k) => (most = Math.max(most, Math.abs(value - b.arrays[key][k]))));
  return most;
}

/** Its reconstruction, small. */
function drawn({ label, arrays: { reconstruction: all } }, best, layers) {
  const pixels = size[0] * size[1];
  if (!all.length) return "";
  const canvas = make("canvas", { className: "small", role: "img", ariaLabel: `Reconstruction by ${label}` });
  const each = best.map((_, k) => all.slice(k * pixels, (k + 1) * pixels));
  paint(canvas, each.map((one) => one.map((value) => 255 * value)), size, hues(layers, each));
  return canvas;
}

const winners = (answer) => ranked(answer.arrays.lengths).slice(0, model.overlaid);
const small = (value) => (value === 0 ? "0" : value.toExponential(1));

/** The last answers of all to one image, dimmed while those to a newer one are on their way. */
function showFrameworks() {
  const { local, each } = state.answers ?? { local: state.local, each: [] };
  const all = [...each, ...(local ? [own(local)] : [])];
  byId("frameworks").classList.toggle("stale", local !== state.local);
  const answered = Object.fromEntries(all.map((each) => [each.name, each]));
  const listed = [...state.frameworks, { name: HERE, library: "JavaScript", state: "ready", precision: "fp64" }];
  table(
    byId("answers"),
    ["", "class", "length", "all lengths", "image", "ms"],
    listed.map(({ name, library, said, state: how, precision }) => {
      const title = make("th", { scope: "row", title: library || "" }, precision === "fp64" && name !== HERE ? `${name}, float64` : name);
      const answer = answered[name];
      if (how === "failed") return [title, make("td", { className: "why", colSpan: 5 }, said)];
      if (!answer) return [title, make("td", { className: "state", colSpan: 5 }, how === "starting" ? "starting ..." : how)];
      const best = winners(answer);
      const lengths = best.map((j) => answer.arrays.lengths[j].toFixed(4)).join("\n");
      return [title, best.map((j) => names[j]).join("\n"), lengths, columns(answer.arrays.lengths, name), drawn(answer, best, local.layers), answer.ms.toFixed(1)];
    }),
  );
  showDistances(all);
}

function showDistances(all) {
  const reference = all.find((each) => each.is_reference);
  byId("distance").hidden = !reference;
  if (!reference) {
    const waits = shown.served && state.local ? (state.problem ?? "") : "";
    byId("verdict").textContent = shown.served
      ? waits || "The same weights in every installed framework, each in a process of its own."
      : "This page computes alone. capsbench demo asks every installed framework the same.";
    return;
  }
  table(
    byId("distances"),
    ["", ...all.map((each) => (each.name === HERE ? "page" : each.name))],
    all.map((a) => [a.label, ...all.map((b) => (a === b ? "" : small(farthest(a, b))))]),
  );
  const said = new Set(all.map((each) => winners(each).sort().join()));
  const others = all.filter((each) => !each.is_reference).map((each) => [farthest(each, reference), each.label]);
  const [most, who] = others.reduce((a, b) => (b[0] > a[0] ? b : a));
  const agree = said.size === 1 ? `All ${all.length} say ${winners(reference).map((j) => names[j]).join(" and ")}.` : "They do not agree.";
  byId("verdict").replaceChildren(`${agree} Farthest from float64: ${who}, by `, make("span", { className: "whole" }, `${small(most)}.`));
}

/** Until each framework is ready or has failed. */
async function watch() {
  try {
    const before = state.frameworks.filter((each) => each.state === "ready").length;
    state.frameworks = await call("/api/state");
    if (state.frameworks.filter((each) => each.state === "ready").length > before) await ask();
    state.problem = "";
  } catch (error) {
    state.problem = `No answer: ${error.message}. Has capsbench demo ended?`;
    showFrameworks();
    return;
  }
  showFrameworks();
  if (state.frameworks.some((each) => each.state === "starting")) setTimeout(watch, 500);
}

// The rest of the page

function describe() {
  const { about } = shown;
  const parts = [
    `A CapsNet with ${model.routing} routing iteration${model.routing > 1 ? "s" : ""}`,
    about.data ? `trained on ${about.data}` : "",
    about.impl ? `in ${about.impl}` : "",
    about.epoch ? `for ${about.epoch} epochs` : "",
  ];
  const error = typeof about.test_err_pct === "number" ? `; ${about.test_err_pct.toFixed(2)}% test error` : "";
  byId("about").textContent = [parts.filter(Boolean).join(" ") + error + ".", about.file, ...about.doubts].filter(Boolean).join(" ");
  const { inner, box, move } = framing;
  const [height, width] = size;
  const where = inner === width && inner === height ? "" : `, in the middle of ${height}x${width}`;
  byId("framing").textContent =
    (framing.centre === "mass"
      ? `Scaled into ${box}x${box} pixels, its centre of mass put in the middle of ${inner}x${inner}${where}, as MNIST's digits were.`
      : `Scaled to ${box} pixels, centred, and seen through ${framing.cells}x${framing.cells} cells, as this data set's digits were.`) +
    (move ? ` Each digit is moved by up to ${move} pixels towards where you draw it.` : "") +
    " What you add to a test image stays where you draw it.";
  byId("footer").textContent = `capsbench ${shown.version}. Nothing that you draw leaves this machine.`;
}

function offerLayers() {
  if (model.overlaid === 1) return;
  const buttons = Array.from({ length: model.overlaid }, (_, layer) => {
    const swatch = make("span", { className: "swatch" });
    swatch.style.background = colour(layer, model.overlaid);
    const button = make("button", { type: "button", ariaPressed: String(layer === 0) }, swatch, `Digit ${layer + 1}`);
    button.addEventListener("click", () => {
      pad.layer = layer;
      buttons.forEach((each, k) => (each.ariaPressed = String(k === layer)));
    });
    return button;
  });
  byId("layers").append(...buttons);
}

function offerExamples() {
  const { images, said } = shown.examples;
  byId("examples-title").textContent = images.length ? `Or start from ${said}` : said;
  for (const { layers, labels } of images) {
    const digits = layers.map(bytes);
    const label = labels.map((j) => names[j]).join(" and ");
    const canvas = make("canvas");
    paint(canvas, digits, size);
    const button = make("button", { type: "button", ariaLabel: `test image of ${label}`, title: label }, canvas);
    button.addEventListener("click", () => pad.start(digits));
    byId("examples").append(button);
  }
}

describe();
offerLayers();
offerExamples();
for (const [name, why] of Object.entries(shown.missing)) byId("missing").append(make("p", {}, `${name}: ${why}`));
byId("undo").addEventListener("click", () => pad.undo());
byId("clear").addEventListener("click", () => pad.clear());
think();
if (shown.served) watch();
globalThis.capsbench = { net, pad, state }; // for scripts and tests
