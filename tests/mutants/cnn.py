"""The faults of the CNN in each implementation: framework -> fault -> edits of its source."""

from __future__ import annotations

from harness.parity.faults.capsnet import FAULTS
from harness.parity.faults.cnn import CNN_FAULTS
from harness.parity.faults.mutate import Edit, in_cnn
from tests.mutants import jax, tf, torch

OWN = tuple(fault for fault in CNN_FAULTS if fault.edits[0].file == "models/cnn.py")
"""Those that it does not share with the CapsNet."""

NOT_DROPPED = "if kept is not None:"

_TORCH_CONVOLUTION = 'F.conv2d(operand(x, self.precision), weight, padding="same")'
_TORCH_SCALED = "(kept.to(x.dtype) / (1 - self.model.dropout))"
_TORCH_UNSCALED = in_cnn(_TORCH_SCALED, "kept.to(x.dtype)")
TORCH: dict[str, tuple[Edit, ...]] = {
    "valid-padding": (in_cnn(_TORCH_CONVOLUTION, _TORCH_CONVOLUTION.replace(', padding="same"', "")),),
    "padding-on-one-side": (
        in_cnn(
            _TORCH_CONVOLUTION,
            "F.conv2d(F.pad(operand(x, self.precision), (0, self.model.cnn_kernel - 1) * 2), weight)",
        ),
    ),
    "kernel-flipped": (
        in_cnn("operand(layer.weight, self.precision)", "operand(layer.weight, self.precision).flip(2, 3)"),
    ),
    "flattened-channels-first": (in_cnn("x.permute(0, 2, 3, 1).flatten(1)", "x.flatten(1)"),),
    "flattened-columns-first": (in_cnn("x.permute(0, 2, 3, 1)", "x.permute(0, 3, 2, 1)"),),
    "last-hidden-layer-without-relu": (
        in_cnn(
            "F.relu(self._dense(layer, x))",
            "(F.relu if layer is not hidden[-1] else torch.clone)(self._dense(layer, x))",
        ),
    ),
    "softmax-missing": (in_cnn("return torch.softmax(logits, dim=1)", "return logits"),),
    "softmax-over-images": (in_cnn("torch.softmax(logits, dim=1)", "torch.softmax(logits, dim=0)"),),
    "softmax-twice": (in_cnn("F.cross_entropy(logits,", "F.cross_entropy(scores(net.model, logits),"),),
    "sum-over-images": torch.EDITS["sum-over-images"],
    "units-dropped-in-evaluation": (
        in_cnn(
            NOT_DROPPED,
            "if kept is None:\n            x = F.dropout(x, self.model.dropout)\n        else:",
        ),
    ),
    "scaled-in-evaluation": (
        in_cnn(NOT_DROPPED, "if kept is None:\n            x = x * (1 - self.model.dropout)\n        else:"),
        _TORCH_UNSCALED,
    ),
    "features-detached": (
        in_cnn("self.features(images), kept", "(x := self.features(images)).detach() + 0 * x, kept"),
    ),
    "dropout-missing": (in_cnn(NOT_DROPPED, "if False:"),),
    "dropout-not-scaled": (_TORCH_UNSCALED,),
    "dropout-scaled-by-rate": (in_cnn("/ (1 - self.model.dropout)", "/ self.model.dropout"),),
    "dropout-inverted": (in_cnn("kept.to(", "(1 - kept).to("),),
}

_TF_CONVOLUTION = 'tf.nn.conv2d(operand(x, self.precision), weight, 1, "SAME")'
_TF_FLATTENED = "tf.reshape(x, (x.shape[0], -1))"
_TF_SCALED = "(tf.cast(kept, x.dtype) / (1 - self.model.dropout))"
_TF_UNSCALED = in_cnn(_TF_SCALED, "tf.cast(kept, x.dtype)")
TF: dict[str, tuple[Edit, ...]] = {
    "valid-padding": (in_cnn(_TF_CONVOLUTION, _TF_CONVOLUTION.replace("SAME", "VALID")),),
    "padding-on-one-side": (
        in_cnn(
            _TF_CONVOLUTION,
            "tf.nn.conv2d(tf.pad(operand(x, self.precision), ((0, 0), *2 * ((0, self.model.cnn_kernel - 1),), (0, 0))), "
            'weight, 1, "VALID")',
        ),
    ),
    "kernel-flipped": (in_cnn("weight, 1,", "weight[::-1, ::-1], 1,"),),
    "flattened-channels-first": (
        in_cnn(_TF_FLATTENED, _TF_FLATTENED.replace("(x,", "(tf.transpose(x, (0, 3, 1, 2)),")),
    ),
    "flattened-columns-first": (
        in_cnn(_TF_FLATTENED, _TF_FLATTENED.replace("(x,", "(tf.transpose(x, (0, 2, 1, 3)),")),
    ),
    "last-hidden-layer-without-relu": (
        in_cnn(
            "tf.nn.relu(self._dense(layer, x))",
            "(tf.nn.relu if layer is not hidden[-1] else tf.identity)(self._dense(layer, x))",
        ),
    ),
    "softmax-missing": (in_cnn("return tf.nn.softmax(logits, axis=1)", "return logits"),),
    "softmax-over-images": (in_cnn("tf.nn.softmax(logits, axis=1)", "tf.nn.softmax(logits, axis=0)"),),
    "softmax-twice": (in_cnn("(labels[:, 0], logits)", "(labels[:, 0], scores(net.model, logits))"),),
    "sum-over-images": tf.EDITS["sum-over-images"],
    "units-dropped-in-evaluation": (
        in_cnn(
            NOT_DROPPED,
            "if kept is None:\n            x = tf.nn.dropout(x, self.model.dropout)\n        else:",
        ),
    ),
    "scaled-in-evaluation": (
        in_cnn(NOT_DROPPED, "if kept is None:\n            x = x * (1 - self.model.dropout)\n        else:"),
        _TF_UNSCALED,
    ),
    "features-detached": (
        in_cnn(
            "self.logits(self.features(images), kept)",
            "self.logits(tf.stop_gradient(x := self.features(images)) + 0 * x, kept)",
        ),
    ),
    "dropout-missing": (in_cnn(NOT_DROPPED, "if False:"),),
    "dropout-not-scaled": (_TF_UNSCALED,),
    "dropout-scaled-by-rate": (in_cnn("/ (1 - self.model.dropout)", "/ self.model.dropout"),),
    "dropout-inverted": (in_cnn("tf.cast(kept,", "tf.cast(1 - kept,"),),
}

_JAX_CONVOLUTION = 'same_convolution(x, self.w[f"{layer}.w"], self.precision)'
_JAX_SCALED = "(kept.astype(x.dtype) / (1 - self.model.dropout))"
_JAX_UNSCALED = in_cnn(_JAX_SCALED, "kept.astype(x.dtype)")
JAX: dict[str, tuple[Edit, ...]] = {
    "valid-padding": (
        Edit("convolution.py", '"SAME"', '"VALID"'),
        Edit(
            "convolution.py",
            "return _window_convolution(jnp.pad(x, ((0, 0), around, around, (0, 0))), w)",
            "return _window_convolution(x, w)",
        ),
    ),
    "padding-on-one-side": (
        in_cnn("from impls.jax.convolution import same_convolution", "from impls.jax.convolution import convolution"),
        in_cnn(
            _JAX_CONVOLUTION,
            'convolution(jax.numpy.pad(x, ((0, 0), *2 * ((0, len(self.w[f"{layer}.w"]) - 1),), (0, 0))), '
            'self.w[f"{layer}.w"], 1, self.precision)',
        ),
    ),
    "kernel-flipped": (in_cnn(_JAX_CONVOLUTION, _JAX_CONVOLUTION.replace('.w"]', '.w"][::-1, ::-1]')),),
    "flattened-channels-first": (in_cnn("x.reshape(len(x), -1)", "x.transpose(0, 3, 1, 2).reshape(len(x), -1)"),),
    "flattened-columns-first": (in_cnn("x.reshape(len(x), -1)", "x.transpose(0, 2, 1, 3).reshape(len(x), -1)"),),
    "last-hidden-layer-without-relu": (
        in_cnn(
            "x = jax.nn.relu(self._dense(",
            "x = (jax.nn.relu if layer != hidden[-1] else jax.numpy.array)(self._dense(",
        ),
    ),
    "softmax-missing": (in_cnn("return jax.nn.softmax(logits, axis=1)", "return logits"),),
    "softmax-over-images": (in_cnn("jax.nn.softmax(logits, axis=1)", "jax.nn.softmax(logits, axis=0)"),),
    "softmax-twice": (in_cnn("(logits, labels[:, 0])", "(scores(net.model, logits), labels[:, 0])"),),
    "sum-over-images": jax.EDITS["sum-over-images"],
    "units-dropped-in-evaluation": (
        in_cnn(
            NOT_DROPPED,
            "if kept is None:\n            kept = jax.random.bernoulli(jax.random.key(0), 0.5, x.shape)\n"
            "        if kept is not None:",
        ),
    ),
    "scaled-in-evaluation": (
        in_cnn(NOT_DROPPED, "if kept is None:\n            x = x * (1 - self.model.dropout)\n        else:"),
        _JAX_UNSCALED,
    ),
    "features-detached": (
        in_cnn(
            "self.logits(self.features(images), kept)",
            "self.logits(jax.lax.stop_gradient(self.features(images)), kept)",
        ),
    ),
    "dropout-missing": (in_cnn(NOT_DROPPED, "if False:"),),
    "dropout-not-scaled": (_JAX_UNSCALED,),
    "dropout-scaled-by-rate": (in_cnn("/ (1 - self.model.dropout)", "/ self.model.dropout"),),
    "dropout-inverted": (in_cnn("kept.astype(", "(1 - kept).astype("),),
}

SHARED = tuple(fault for fault in CNN_FAULTS if fault.name in {other.name for other in FAULTS} and fault not in OWN)
EDITS = {"numpy": {fault.name: fault.edits for fault in OWN}, "torch": TORCH, "tf": TF, "jax": JAX}
