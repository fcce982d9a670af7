// The CapsNet of Sabour, Frosst, Hinton 2017 (arXiv 1710.09829v2): the forward pass in plain JavaScript, for one image.
//
// A translation of impls/numpy, in 64-bit arithmetic on the trained 32-bit weights; a test holds it to that specification.
// Layouts are those of `harness.weights.weight_table`. Arrays are flat, the last axis the fastest.

const EPSILON = 1e-9; // added to |s|^2 under the root, as harness.spec.SQUASH_EPSILON

/** The weights in a safetensors file, by name, as Float32Array. */
export function readSafetensors(buffer) {
  const length = Number(new DataView(buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, length)));
  const weights = {};
  delete header.__metadata__;
  for (const [name, { dtype, data_offsets: [from, to] }] of Object.entries(header)) {
    const bytes = buffer.slice(8 + length + from, 8 + length + to); // a copy, since the file may not be aligned
    weights[name] = dtype === "F64" ? new Float64Array(bytes) : new Float32Array(bytes);
  }
  return weights;
}

/** Cross-correlation without padding: x (height, width, C), w (k, k, C, F). Returns (h, w, F) without a bias. */
function convolution(x, height, width, channels, w, kernel, filters, stride) {
  const rows = Math.floor((height - kernel) / stride) + 1;
  const columns = Math.floor((width - kernel) / stride) + 1;
  const out = new Float64Array(rows * columns * filters);
  const sum = new Float64Array(filters);
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      sum.fill(0);
      for (let i = 0; i < kernel; i++) {
        for (let j = 0; j < kernel; j++) {
          const source = ((row * stride + i) * width + column * stride + j) * channels;
          const tap = (i * kernel + j) * channels;
          for (let c = 0; c < channels; c++) {
            const value = x[source + c];
            if (value === 0) continue; // most of a drawing is black, and half of what a ReLU passes on is zero
            const weight = (tap + c) * filters;
            for (let f = 0; f < filters; f++) sum[f] += value * w[weight + f];
          }
        }
      }
      out.set(sum, (row * columns + column) * filters);
    }
  }
  return out;
}

/** Eq. 1 on every vector of `d` numbers, in place. */
function squash(s, d) {
  for (let start = 0; start < s.length; start += d) {
    let square = 0;
    for (let k = start; k < start + d; k++) square += s[k] * s[k];
    const scale = square / (1 + square) / Math.sqrt(square + EPSILON);
    for (let k = start; k < start + d; k++) s[k] *= scale;
  }
  return s;
}

/** The length of every vector of `d` numbers. */
export function lengthsOf(v, d) {
  return Float64Array.from({ length: v.length / d }, (_, j) => {
    let square = 0;
    for (let k = j * d; k < (j + 1) * d; k++) square += v[k] * v[k];
    return Math.sqrt(square + EPSILON);
  });
}

/** Classes by descending length; of equal ones the first comes first. */
export function ranked(lengths) {
  return Array.from(lengths.keys()).sort((a, b) => lengths[b] - lengths[a] || a - b);
}

function dense(x, w, bias, activation) {
  const out = Float64Array.from(bias);
  const width = out.length;
  for (let i = 0; i < x.length; i++) {
    if (x[i] === 0) continue;
    for (let k = 0; k < width; k++) out[k] += x[i] * w[i * width + k];
  }
  for (let k = 0; k < width; k++) out[k] = activation(out[k]);
  return out;
}

const relu = (x) => Math.max(x, 0);
const sigmoid = (x) => 0.5 * (1 + Math.tanh(0.5 * x));

export class CapsNet {
  /** `model` is a `harness.models.capsnet.CapsNetSpec` as JSON, `weights` is what `readSafetensors` returns. */
  constructor(model, weights) {
    this.model = model;
    this.weights = weights;
    const [height, width] = model.image;
    this.grid = [height, width].map((side) => Math.floor((side - model.kernel + 1 - model.kernel) / 2) + 1);
    this.capsules = this.grid[0] * this.grid[1] * model.primary_types;
  }

  /**
   * One image: `layers` are the overlaid digits, each (height, width, C) with values of 0 to 255.
   *
   * Returns `digit` (J, e), `lengths` (J), `classes` (the K longest), `reconstruction` (an array (H, W, C) for each of them;
   * empty without a decoder), and `routing`: for each iteration the coupling c (I, J), the capsules v (J, e) and the
   * agreement u_hat . v (I, J).
   */
  forward(layers) {
    const { model, weights: w } = this;
    const [height, width, channels] = model.image;
    const image = new Float64Array(height * width * channels);
    for (const layer of layers) for (let k = 0; k < image.length; k++) image[k] += layer[k] / 255;
    for (let k = 0; k < image.length; k++) image[k] = Math.min(image[k], 1);

    const filters = model.conv_channels;
    const conv1 = convolution(image, height, width, channels, w["conv1.w"], model.kernel, filters, 1);
    for (let k = 0; k < conv1.length; k++) conv1[k] = relu(conv1[k] + w["conv1.b"][k % filters]);

    const depth = model.primary_types * model.primary_dim;
    const [rows, columns] = [height - model.kernel + 1, width - model.kernel + 1];
    const primary = convolution(conv1, rows, columns, filters, w["primary.w"], model.kernel, depth, 2);
    const scale = model.profile === "official" ? 1 / model.primary_types : 1;
    for (let k = 0; k < primary.length; k++) primary[k] = primary[k] * scale + w["primary.b"][k % depth];

    const routing = this.#route(this.#votes(squash(primary, model.primary_dim)));
    const digit = routing.at(-1).v;
    const lengths = lengthsOf(digit, model.digit_dim);
    const classes = ranked(lengths).slice(0, model.overlaid);
    const reconstruction = model.decoder
      ? classes.map((j) => this.decode(digit.subarray(j * model.digit_dim, (j + 1) * model.digit_dim), j))
      : [];
    return { digit, lengths, classes, reconstruction, routing };
  }

  /** Eq. 2: u_hat (I, J, e). */
  #votes(u) {
    const { primary_dim: d, digit_dim: e, classes } = this.model;
    const w = this.weights["digit.w"];
    const votes = new Float64Array(this.capsules * classes * e);
    for (let i = 0; i < this.capsules; i++) {
      for (let j = 0; j < classes; j++) {
        const out = (i * classes + j) * e;
        for (let a = 0; a < d; a++) {
          const value = u[i * d + a];
          const weight = ((i * classes + j) * d + a) * e;
          for (let b = 0; b < e; b++) votes[out + b] += value * w[weight + b];
        }
      }
    }
    return votes;
  }

  /** Procedure 1. */
  #route(votes) {
    const { routing, classes, digit_dim: e, none_of_the_above: leaks } = this.model;
    const bias = this.weights["digit.b"];
    const logits = new Float64Array(this.capsules * classes);
    const history = [];
    for (let iteration = 0; iteration < routing; iteration++) {
      const c = new Float64Array(logits.length);
      for (let i = 0; i < this.capsules; i++) {
        const row = logits.subarray(i * classes, (i + 1) * classes); // Eq. 3: the softmax is over the output capsules
        const most = row.reduce((a, b) => Math.max(a, b), leaks ? 0 : -Infinity);
        let sum = leaks ? Math.exp(-most) : 0;
        for (let j = 0; j < classes; j++) sum += c[i * classes + j] = Math.exp(row[j] - most);
        for (let j = 0; j < classes; j++) c[i * classes + j] /= sum;
      }
      const v = bias ? Float64Array.from(bias) : new Float64Array(classes * e);
      for (let pair = 0; pair < c.length; pair++) {
        const j = pair % classes;
        for (let b = 0; b < e; b++) v[j * e + b] += c[pair] * votes[pair * e + b];
      }
      squash(v, e);
      const agreement = new Float64Array(c.length);
      for (let pair = 0; pair < c.length; pair++) {
        const j = pair % classes;
        for (let b = 0; b < e; b++) agreement[pair] += votes[pair * e + b] * v[j * e + b];
        logits[pair] += agreement[pair];
      }
      history.push({ c, v, agreement });
    }
    return history;
  }

  /** Section 4.1: pixels of 0 to 1, (H, W, C), from the capsule (e) of class `j`; all other capsules are zero. */
  decode(capsule, j) {
    const w = this.weights;
    const { digit_dim: e } = this.model;
    const fan = w["dec1.b"].length;
    const first = dense(capsule, w["dec1.w"].subarray(j * e * fan, (j + 1) * e * fan), w["dec1.b"], relu);
    return dense(dense(first, w["dec2.w"], w["dec2.b"], relu), w["dec3.w"], w["dec3.b"], sigmoid);
  }

  /** The mean entropy, in bits, of the couplings of a primary capsule: log2(J) while it votes for all alike. */
  entropy(c) {
    const { classes } = this.model;
    let sum = 0;
    for (const share of c) if (share > 0) sum -= share * Math.log2(share);
    return sum / (c.length / classes);
  }

  /** The means of `pairs` (I, J) for class `j` over the grid, for each type of primary capsule. */
  byType(pairs, j) {
    const { primary_types: types, classes } = this.model;
    const means = new Float64Array(types);
    for (let i = 0; i < this.capsules; i++) means[i % types] += pairs[i * classes + j];
    return means.map((sum) => sum / (this.capsules / types));
  }
}
