"""What each key of a suite means, in a sentence: for the JSON Schema that editors use, and for the reference.

`tests/suite/test_schema.py` holds these to the keys that there are.
"""

from __future__ import annotations

from harness import models
from harness.suite.keys import known

SECTIONS = {
    "data": "Which images.",
    "data.split": "How one's own pictures are divided where their files do not say: drawn once, whatever a trial's seed.",
    "data.augment": "Augmentation of training images, drawn anew for each image and epoch.",
    "model": "The kind of model and its size.",
    "train": "How long, in which batches, at which learning rate, from which weights.",
    "train.lr_decay": "How the learning rate falls with the completed steps t: max(lr * rate^n, floor).",
    "train.decoder": "The decoder's own optimiser settings.",
    "train.stop": "When training ends early: after the first epoch at which one of these rules holds.",
    "runtime": "How trials run.",
    "parity": "The gate before timing, the audit while a trial runs, the margin afterwards.",
    "measure": "What is measured in addition, outside all timed regions.",
    "resources": "What one trial has to itself.",
    "search": "Settings of its own for each point of the grid: what is searched, by which method, for which budget.",
    "search.confirm": "How the best proposal is judged: trained anew with other seeds, and tested on the test images.",
    "grid": "Lists of values for any keys: they are multiplied into trials.",
    "quick": "Settings that --quick applies, by their dotted names.",
}
"""The sections."""

MEANINGS = {
    "name": "What the suite is called, and its run directory: runs/NAME.",
    "question": "The question that the suite answers, for the list of suites and the report.",
    "vary": "together: all combinations of the grid. singly: one key at a time, around the first value of each.",
    "data.name": "A data set (`capsbench data list`), or a format of your own files: folder, npz, csv, idx, module.",
    "data.path": "The folder or file of your own pictures.",
    "data.test_path": "The same for test pictures, if they are elsewhere.",
    "data.module": "For name: module, the function that returns arrays: package.module:function.",
    "data.classes": "Names for the labels 0, 1, ...; of a folder, which class folders to use, in this order.",
    "data.channels": "1 makes grey, 3 colour; if left out, colour if any picture has it.",
    "data.shape": "Of the pictures in a CSV file, if they are not square or are in colour.",
    "data.label_column": "Of a CSV file: first, last, or a name in its header; if left out, it is found out.",
    "data.split.test": "The share of each class that is held out as test pictures.",
    "data.split.validation": "The share of what is left that is held out as validation pictures.",
    "data.split.seed": "Another seed draws another division.",
    "data.resize": "Scales to 32 (32x32) or 32x48 (height x width) pixels; then come crop and pad.",
    "data.fit": "What resize does to another aspect ratio: stretch, cut, or pad.",
    "data.crop": "Cuts these many pixels out of the middle, or where augment.crop says.",
    "data.pad": "Centres on black of this size.",
    "data.test_from": "Another data set, whose test images replace this one's.",
    "data.train": "How many training images; if left out, all.",
    "data.validation": "How many validation images; if left out, the data set's usual number.",
    "data.test": "How many test images; if left out, all.",
    "data.canvas": "Pixels a side of a black canvas on which the images are centred; if left out, they stay as they are.",
    "data.augment.shift": "Shifts by at most so many pixels each way, zero filled; if left out, the data set's usual value.",
    "data.augment.crop": "Where data.crop cuts training images: in the middle, or anywhere, drawn anew in each epoch.",
    "data.dir": "Where the files of data sets are kept; if left out, CAPSBENCH_DATA or the cache folder.",
    "model.kind": "The kind of model: the CapsNet, or the paper's baseline CNN.",
    "model.profile": "The paper's text, or the authors' released code where it differs.",
    "model.routing": "r of the paper's Procedure 1: r softmaxes and r squashes.",
    "model.none_of_the_above": "One more category in routing's softmaxes, with logit 0 and no capsule (section 7).",
    "model.decoder": "Whether there is a decoder, whose reconstruction error is then a part of the loss.",
    "model.conv_channels": "Channels of the first convolution.",
    "model.primary_types": "Types of primary capsules.",
    "model.primary_dim": "Dimensions of a primary capsule.",
    "model.digit_dim": "Dimensions of a class's capsule.",
    "model.decoder_units": "Units of the decoder's two hidden layers.",
    "model.kernel": "Side of the kernel of both convolutions; no padding, strides 1 and 2.",
    "model.cnn_channels": "Channels of each convolution; the list's length is their number.",
    "model.cnn_kernel": "Side of the kernels: one for all convolutions, or one for each.",
    "model.cnn_pool": "Max pooling over so many pixels a side after each convolution; 1: none.",
    "model.cnn_units": "Units of each hidden layer; the list's length is their number.",
    "model.dropout": "Dropout rate of the last hidden layer; the paper gives none.",
    "train.lr": "Adam's learning rate.",
    "train.lr_decay.kind": "exponential: n = t / steps. staircase: its whole part. epoch: n epochs. constant: always lr.",
    "train.lr_decay.rate": "The factor for each period n.",
    "train.lr_decay.steps": "Steps in a period; with kind epoch, those of an epoch.",
    "train.lr_decay.floor": "The learning rate never falls below this.",
    "train.weight_decay": "L2 added to the gradient of every weight and bias, as in Adam; not AdamW's.",
    "train.decoder.lr": "The decoder's learning rate; if left out, the same as of all other weights.",
    "train.decoder.weight_decay": "The decoder's weight decay; likewise.",
    "train.epochs": "How many epochs at most.",
    "train.batch": "Images in a batch; an epoch's last batch may have fewer.",
    "train.keep_every": "Keep the weights of every so many epochs, beside those of the last and the best one.",
    "train.stop.patience": "Stop after so many epochs in a row without a new best one on the validation images.",
    "train.stop.accuracy_pct": "Stop once this accuracy is reached, in percent, on the images that `on` names.",
    "train.stop.on": "Which images decide. test is for the paper's affNIST protocol only: the test error is then no estimate.",
    "train.start_from": "Weights to start from: RUN/TRIAL, or a safetensors file with canonical names.",
    "runtime.precision": "fp32 is strict; tf32 and bf16 round the operands of the same matrix products in every framework.",
    "runtime.compile": "Whether frameworks compile the training step, or run it operation by operation.",
    "runtime.environment": "Environment variables of trials. They count in a trial's id.",
    "runtime.retries": "How often a trial is tried again, per run, after its worker was killed or hung.",
    "runtime.hang_s": "After how many seconds without a sign of life a worker counts as hung.",
    "runtime.warm": "Whether trials may run in forks of a worker that has imported everything; their times are not shown.",
    "parity.gate": "Whether an implementation must equal the specification before its times are shown.",
    "parity.level": "The last level of the ladder that the gate climbs.",
    "parity.steps": "Training steps of the trajectory at L6.",
    "parity.audit": "Whether the specification checks samples of training and of the test error while a trial runs.",
    "parity.margin_pct": "Test errors at most so many percentage points apart count as equivalent (L7).",
    "measure.routing_logits": "On how many validation images the routing is measured after each epoch; 0: it is not.",
    "resources.cpus": "Cores of a trial, which no other trial uses meanwhile.",
    "resources.gpus": "GPUs of a trial; auto: one if there is any and the implementation can use it, else none.",
    "resources.gpu_type": "Only GPUs of this type, as Ray's nodes report it.",
    "resources.exclusive": "node: no other trial of capsbench runs on the node meanwhile.",
    "environments": "Which Python an implementation runs in. Where it is changes no result; its versions count.",
    "search.method": "random draws; optuna proposes with an eye on the results so far; halving gives up the worst early.",
    "search.space": "Keys of train, model and data.augment, each with a range or a list; they stand nowhere else.",
    "search.trials": "The budget of each contestant: how many proposals.",
    "search.epochs": "The budget of each contestant, instead: how many epochs of all its proposals together.",
    "search.together": "optuna: how many proposals are made at a time.",
    "search.first": "halving: epochs of the first rung.",
    "search.factor": "halving: one in so many goes on, for so many times the epochs.",
    "search.confirm.seed": "The seeds that judge the best proposal; not that of the search.",
    "impl": "Implementations: built-in, registered, package.module:Class or file.py:Class; NAME@LABEL in an environment.",
    "seed": "Seeds of initial weights, order of images, shifts and dropout masks.",
}  # fmt: skip
"""The keys of built-in sections and kinds of model, and of the grid."""


def meaning(key: str) -> str:
    """What `key` means; for a setting of a kind of model from elsewhere, which kinds have it."""
    if key in MEANINGS:
        return MEANINGS[key]
    name = key.rpartition(".")[2]
    kinds = [kind for kind, keys in models.settings().items() if name in keys]
    return f"A setting of models of kind {' or '.join(kinds)}; it takes {known().all[key].expected}."
