// The sketch pad: strokes become an image like those that the network was trained on.

export const COLOURS = ["#ffffff", "#ffb000", "#4cc9ff", "#b6e880"]; // of one digit; of the first, second and third of several
const FINE = 8; // samples per pixel and direction
const PEN = 0.085; // width of a stroke on the pad, as a share of its side

/** The colour of digit `layer` of `count`. */
export const colour = (layer, count) => (count === 1 ? COLOURS[0] : COLOURS[1 + (layer % 3)]);

/** Strokes as an image of `size` x `size` with values of 0 to 1. `place` takes a point to pixels; `pen` is in pixels. */
function raster(strokes, size, pen, place) {
  const canvas = new OffscreenCanvas(size * FINE, size * FINE);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.scale(FINE, FINE);
  context.lineWidth = pen;
  context.lineCap = context.lineJoin = "round";
  for (const stroke of strokes) trace(context, stroke.points.map(place));
  const { data } = context.getImageData(0, 0, size * FINE, size * FINE);
  const out = new Float64Array(size * size);
  for (let y = 0; y < size * FINE; y++) {
    for (let x = 0; x < size * FINE; x++) {
      out[Math.floor(y / FINE) * size + Math.floor(x / FINE)] += data[4 * (y * size * FINE + x) + 3];
    }
  }
  return out.map((sum) => sum / (255 * FINE * FINE));
}

function trace(context, points) {
  context.beginPath();
  context.moveTo(...points[0]);
  if (points.length === 1) context.lineTo(points[0][0] + 1e-3, points[0][1]); // a dot
  for (const point of points.slice(1)) context.lineTo(...point);
  context.stroke();
}

/** The middle of what is drawn: the mean of its pixels' centres, weighted by their values. */
function mass(image, size) {
  let [sum, x, y] = [0, 0, 0];
  image.forEach((value, k) => {
    sum += value;
    x += value * ((k % size) + 0.5);
    y += value * (Math.floor(k / size) + 0.5);
  });
  return sum ? [x / sum, y / sum] : [size / 2, size / 2];
}

/** Through few cells: averaged into cells x cells inside a margin, then enlarged by linear interpolation. */
function through(image, size, cells, pad) {
  const scale = (size - 2 * pad) / cells;
  const coarse = new Float64Array(cells * cells);
  for (let y = 0; y < cells * scale; y++) {
    for (let x = 0; x < cells * scale; x++) {
      coarse[Math.floor(y / scale) * cells + Math.floor(x / scale)] += image[(y + pad) * size + x + pad] / scale ** 2;
    }
  }
  const at = (y, x) => coarse[Math.min(Math.max(y, 0), cells - 1) * cells + Math.min(Math.max(x, 0), cells - 1)];
  return image.map((_, k) => {
    const [x, y] = [k % size, Math.floor(k / size)].map((each) => (each - pad + 0.5) / scale - 0.5);
    if (Math.min(x, y) < -0.5 || Math.max(x, y) > cells - 0.5) return 0;
    const [left, top] = [Math.floor(x), Math.floor(y)];
    const [right, down] = [x - left, y - top];
    return (
      (at(top, left) * (1 - right) + at(top, left + 1) * right) * (1 - down) +
      (at(top + 1, left) * (1 - right) + at(top + 1, left + 1) * right) * down
    );
  });
}

/** One digit's strokes, points in 0..1, as `size` x `size` pixels: scaled into the box, then centred. */
function framed(strokes, { inner, box, pen, centre, cells, pad }) {
  const points = strokes.flatMap((stroke) => stroke.points);
  const [low, high] = [Math.min, Math.max].map((most) => [0, 1].map((axis) => most(...points.map((p) => p[axis]))));
  const side = Math.max(high[0] - low[0], high[1] - low[1]);
  const scale = Math.min((box - pen) / Math.max(side, 1e-6), 4 * inner); // a dot stays one
  const middle = [0, 1].map((axis) => (low[axis] + high[axis]) / 2);
  const at = (to) => (point) => [0, 1].map((axis) => (point[axis] - middle[axis]) * scale + to[axis]);
  let image = raster(strokes, inner, pen, at([inner / 2, inner / 2]));
  if (centre === "mass") {
    const [x, y] = mass(image, inner);
    image = raster(strokes, inner, pen, at([inner - x, inner - y]));
  }
  return { image: cells ? through(image, inner, cells, pad) : image, middle };
}

/** Strokes as the model's image (height, width), 0 to 255. Of several digits, each moves by at most `framing.move`. */
export function toImage(strokes, [height, width], framing) {
  const out = new Uint8Array(height * width);
  if (!strokes.length) return out;
  const { image, middle } = framed(strokes, framing);
  const { inner, move } = framing;
  const offset = [width, height].map((side, axis) => {
    const moved = Math.round((middle[axis] - 0.5) * side);
    return Math.floor((side - inner) / 2) + Math.min(Math.max(moved, -move), move);
  });
  image.forEach((value, k) => {
    const [x, y] = [(k % inner) + offset[0], Math.floor(k / inner) + offset[1]];
    if (x >= 0 && x < width && y >= 0 && y < height) out[y * width + x] = Math.round(255 * Math.min(value, 1));
  });
  return out;
}

/** Strokes where they are, without framing: what is added to an image of the test set. */
function added(strokes, [height, width]) {
  const side = Math.max(height, width);
  const image = raster(strokes, side, PEN * side, (point) => point.map((each) => each * side));
  const margin = [(side - height) / 2, (side - width) / 2].map(Math.floor);
  return Uint8Array.from({ length: height * width }, (_, k) => {
    const [x, y] = [(k % width) + margin[1], Math.floor(k / width) + margin[0]];
    return Math.round(255 * Math.min(image[y * side + x], 1));
  });
}

/** Draws on `canvas`; calls `changed` after each change. `layer` is the digit that is being drawn. */
export class Pad {
  constructor(canvas, model, framing, changed) {
    Object.assign(this, { canvas, model, framing, changed, layer: 0, strokes: [], base: null, isDrawing: false });
    canvas.addEventListener("pointerdown", (event) => this.#begin(event));
    canvas.addEventListener("pointermove", (event) => this.#go(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, (event) => this.#end(event));
    this.show();
  }

  /** Starts from K digits of the test set, each an Uint8Array (H, W). */
  start(layers) {
    [this.base, this.strokes] = [layers, []];
    this.#update();
  }

  clear() {
    [this.base, this.strokes] = [null, []];
    this.#update();
  }

  undo() {
    if (this.strokes.length) this.strokes.pop();
    else this.base = null;
    this.#update();
  }

  get isEmpty() {
    return !this.strokes.length && !this.base;
  }

  /** The K digits that the network is to see, each an Uint8Array (H, W). */
  layers() {
    const size = this.model.image.slice(0, 2);
    return Array.from({ length: this.model.overlaid }, (_, layer) => {
      const own = this.strokes.filter((stroke) => stroke.layer === layer);
      if (!this.base) return toImage(own, size, this.framing);
      if (!own.length) return this.base[layer];
      const more = added(own, size);
      return this.base[layer].map((value, k) => Math.max(value, more[k]));
    });
  }

  show() {
    const { canvas, model } = this;
    const context = canvas.getContext("2d");
    const side = canvas.width;
    context.globalCompositeOperation = "source-over";
    context.fillStyle = "#000";
    context.fillRect(0, 0, side, side);
    context.globalCompositeOperation = "lighter";
    const [height, width] = model.image;
    const scale = side / Math.max(height, width);
    (this.base ?? []).forEach((layer, number) => {
      const small = tinted(layer, height, width, colour(number, model.overlaid));
      const [w, h] = [width * scale, height * scale];
      context.drawImage(small, (side - w) / 2, (side - h) / 2, w, h);
    });
    if (this.isEmpty) {
      context.fillStyle = "#8a8f98";
      context.font = `${side / 16}px system-ui, sans-serif`;
      context.textAlign = "center";
      context.fillText("Draw here", side / 2, side / 2);
    }
    context.lineWidth = PEN * side;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of this.strokes) {
      context.strokeStyle = colour(stroke.layer, model.overlaid);
      trace(context, stroke.points.map((point) => point.map((each) => each * side)));
    }
  }

  #update() {
    this.show();
    this.changed();
  }

  #point(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
  }

  #begin(event) {
    if (event.button !== 0 || this.isDrawing) return; // one pen, finger or button at a time
    event.preventDefault();
    this.canvas.setPointerCapture(event.pointerId);
    [this.isDrawing, this.pointer] = [true, event.pointerId];
    this.strokes.push({ layer: this.layer, points: [this.#point(event)] });
    this.#update();
  }

  #go(event) {
    if (!this.isDrawing || event.pointerId !== this.pointer) return;
    const all = event.getCoalescedEvents?.() ?? [];
    for (const each of all.length ? all : [event]) this.strokes.at(-1).points.push(this.#point(each));
    this.#update();
  }

  #end(event) {
    if (!this.isDrawing || event.pointerId !== this.pointer) return;
    this.isDrawing = false;
    this.#update();
  }
}

/** Pixels of 0 to 255 as a small canvas in one colour on black. */
export function tinted(pixels, height, width, hue) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const picture = context.createImageData(width, height);
  const parts = [1, 3, 5].map((from) => parseInt(hue.slice(from, from + 2), 16) / 255);
  pixels.forEach((value, k) => {
    for (let c = 0; c < 3; c++) picture.data[4 * k + c] = value * parts[c];
    picture.data[4 * k + 3] = 255;
  });
  context.putImageData(picture, 0, 0);
  return canvas;
}
