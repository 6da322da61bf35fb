"""What training, its checkpoints, its evaluation and its records are set by."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class GuardConfig:
    """Updates that look wrong are left out: a loss or gradient far outside what the last steps had, or not finite."""

    window: int = 64
    """Steps that make the history; none is judged by size before half of them are there."""
    deviations: float = 10.0
    """How many deviations (1.4826 times the median one, as of a normal distribution) above the median is far; 0 =
    only what is not finite."""
    in_a_row: int = 5
    """So many left out one after another stop the run."""
    most: int = 100
    """So many left out in all stop the run."""


@dataclass(frozen=True)
class TrainConfig:
    """Optimization. Rates are for AdamW unless said otherwise."""

    steps: int = 1000
    """Optimizer steps."""
    learning_rate: float = 0.0
    """Peak learning rate; 0 = from the width: 6e-4 at 768, falling with its square root."""
    schedule: Literal["wsd", "cosine", "constant"] = "wsd"
    """After warm-up: stable then linear decay over the last `decay_fraction`, a half cosine, or nothing."""
    warmup_steps: int = 100
    """Steps of linear warm-up."""
    decay_fraction: float = 0.2
    """wsd: last share of the steps, over which the rate falls."""
    final_fraction: float = 0.0
    """wsd, cosine: the rate at the end, as a share of the peak."""
    accumulate: int = 1
    """Parts that a batch is cut into and gone through one after another, to need less memory."""
    batch_warmup_steps: int = 0
    """Steps over which the batch grows from one of `accumulate` parts to all of them."""
    optimizer: Literal["adamw", "muon", "adafactor"] = "adamw"
    """muon: for the matrices of the layers, and AdamW for the rest."""
    weight_decay: float = 0.1
    """Decoupled weight decay on matrices; norms, biases and embeddings have none."""
    beta1: float = 0.9
    """AdamW: memory of the gradient."""
    beta2: float = 0.95
    """AdamW: memory of its square."""
    epsilon: float = 1e-8
    """AdamW: added to the root of the square."""
    momentum: float = 0.95
    """Muon: memory of the gradient (Nesterov)."""
    grad_clip: float = 1.0
    """Largest global gradient norm."""
    z_loss: float = 0.0
    """Weight of the squared log-partition of the logits; 1e-4 keeps them from drifting in bfloat16."""
    mtp_weight: float = 0.3
    """Weight of the loss of the heads that look further ahead (model.mtp_heads), shared between them."""
    mup_base_width: int = 0
    """A width whose learning rate is right: rates and logits of other widths follow from it (muP); 0 = not."""
    matmuls: Literal["", "int8", "fp8"] = ""
    """Training products of attention and feed-forward in fewer bits (needs the extra quant); empty = in
    model.compute_dtype, as those of routed experts and of the output table always are."""
    guard: GuardConfig = GuardConfig()
    start: str = ""
    """A checkpoint of a run (RUN or RUN/checkpoints/STAGE/STEP) to go on from; empty = from the beginning."""


@dataclass(frozen=True)
class MidtrainConfig:
    """Training on longer rows after pretraining, from its last state. What is left at 0 or empty stays as it was."""

    steps: int = 0
    """Optimizer steps; 0 = no mid-training."""
    seq_len: int = 0
    """Length of rows; 0 = four times that of pretraining."""
    batch_size: int = 0
    """Rows in a batch; 0 = as many as have the tokens of a batch before."""
    rope_theta: float = 0.0
    """Base of the rotation wavelengths; 0 = grown with the length."""
    rope_scaling: Literal["", "none", "linear", "llama3", "yarn"] = ""
    """How positions are stretched past the length pretraining had; the factor follows from the lengths."""
    level: Literal["", "file", "repository"] = ""
    """What a document is in the experiment's own corpus."""
    learning_rate: float = 0.0
    """Peak learning rate; 0 = a third of that of pretraining."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out measures, during training and after it."""

    every: int = 0
    """Steps between evaluations of the held-out loss; 0 = only after a stage."""
    batches: int = 8
    """Batches of held-out text in each."""
    infill_every: int = 0
    """Steps between evaluations of infilling; 0 = only after the last stage."""
    infill_examples: int = 16
    """Holes to fill in held-out documents."""
    infill_tokens: int = 32
    """The most tokens that fill one."""
    suites: tuple[str, ...] = ()
    """Suites of `codelm eval` that are measured after the last stage; what they leave is in RUN/evals."""
    suites_every: int = 0
    """Steps between evaluations by those suites; 0 = only after the last stage."""
    suites_tasks: int = 64
    """The first so many tasks of each; 0 = all."""


@dataclass(frozen=True)
class CheckpointConfig:
    """Which states are kept."""

    folder: str = ""
    """Where they go, also gs://; empty = into the run's folder."""
    every: int = 500
    """Steps between checkpoints; the last state of a stage is always kept."""
    keep_last: int = 2
    """The newest so many stay."""
    keep_every: int = 0
    """And those at multiples of this many steps; 0 = none."""
    keep_best: bool = True
    """And the one with the lowest held-out loss."""


@dataclass(frozen=True)
class TrackConfig:
    """What is written down while it trains."""

    every: int = 10
    """Steps between lines of metrics."""
    tensorboard: bool = True
    """TensorBoard events in the run's folder."""
    wandb: str = ""
    """Project at Weights & Biases (needs the extra wandb); empty = not."""
