"""The pipeline: levels of passes in the order they run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from hf2khc.ir.graph import Program
from hf2khc.passes.core.compare_positions import compare_positions
from hf2khc.passes.core.compute_tables import compute_tables
from hf2khc.passes.core.fold_constants import fold_constants
from hf2khc.passes.core.index_by_arange import index_by_arange
from hf2khc.passes.core.inline_functions import inline_functions
from hf2khc.passes.core.inline_numbers import inline_numbers
from hf2khc.passes.core.lower_aten import lower_aten
from hf2khc.passes.core.merge_equal_entries import merge_equal_entries
from hf2khc.passes.core.normalize import normalize
from hf2khc.passes.core.solve_substitution import solve_substitution
from hf2khc.passes.hub.align_layers import align_layers
from hf2khc.passes.hub.channels_last_inputs import channels_last_inputs
from hf2khc.passes.hub.drop_true_conditions import drop_true_conditions
from hf2khc.passes.hub.hand_sizes_down import hand_sizes_down
from hf2khc.passes.hub.hoist_loops import hoist_loops
from hf2khc.passes.hub.hoist_results import hoist_results
from hf2khc.passes.hub.inline_fragments import inline_fragments
from hf2khc.passes.hub.inline_layers import inline_layers
from hf2khc.passes.hub.lift_shared_layers import lift_shared_layers
from hf2khc.passes.hub.merge_graphs import merge_graphs
from hf2khc.passes.hub.order_values import order_values
from hf2khc.passes.hub.project_heads import project_heads
from hf2khc.passes.hub.recognize_convolution import recognize_convolution
from hf2khc.passes.hub.recognize_embedding import recognize_embedding
from hf2khc.passes.hub.recognize_frequencies import recognize_frequencies
from hf2khc.passes.hub.recognize_idioms import recognize_idioms
from hf2khc.passes.hub.recognize_linear import recognize_linear
from hf2khc.passes.hub.recognize_masks import recognize_masks
from hf2khc.passes.hub.recognize_norms import recognize_norms
from hf2khc.passes.hub.recognize_rotary import recognize_rotary
from hf2khc.passes.hub.recognize_tables import recognize_tables
from hf2khc.passes.hub.roll_loops import roll_loops
from hf2khc.passes.hub.separate_heads import separate_heads
from hf2khc.passes.hub.share_parameters import share_parameters
from hf2khc.passes.hub.simplify import simplify
from hf2khc.passes.hub.sink_producers import sink_producers
from hf2khc.passes.hub.sink_transposes import sink_transposes
from hf2khc.passes.hub.split_fused_linear import split_fused_linear
from hf2khc.passes.hub.tie_embeddings import tie_embeddings
from hf2khc.passes.hub.trim_padding import trim_padding
from hf2khc.passes.hub.unite_modules import unite_modules
from hf2khc.passes.keras.fold_transposes import fold_transposes
from hf2khc.passes.keras.group_queries import group_queries
from hf2khc.passes.keras.lower_frequencies import lower_frequencies
from hf2khc.passes.keras.lower_masks import lower_masks
from hf2khc.passes.keras.merge_sizes import merge_sizes
from hf2khc.passes.keras.name_graphs import name_graphs
from hf2khc.passes.keras.name_inputs import name_inputs
from hf2khc.passes.keras.name_layers import name_layers
from hf2khc.passes.keras.name_values import name_values
from hf2khc.passes.keras.outline_entry import outline_entry
from hf2khc.passes.keras.outline_parameters import outline_parameters
from hf2khc.passes.keras.outline_rotary import outline_rotary
from hf2khc.passes.keras.pad_heads import pad_heads
from hf2khc.passes.keras.softmax_in_float32 import softmax_in_float32
from hf2khc.passes.keras.use_hub_layers import use_hub_layers

Pass = Callable[[Program], Program]


@dataclass(frozen=True)
class Level:
    """Passes that bring a program from one dialect to the next.

    Args:
        name: of the dialect the program is in when they are done.
        passes: in the order they run.
    """

    name: str
    passes: tuple[Pass, ...]


PIPELINE = (
    Level(
        "ops",
        (
            # First, so that an activation module does not hide its one op from everything below.
            inline_functions,
            index_by_arange,
            normalize,
            merge_equal_entries,
            solve_substitution,
            lower_aten,
            fold_constants,
            compare_positions,
            compute_tables,
            inline_numbers,
        ),
    ),
    Level(
        "hub",
        (
            separate_heads,
            recognize_idioms,
            recognize_linear,
            recognize_convolution,
            recognize_embedding,
            recognize_norms,
            # Only now is a Linear or a norm of the model's own a single layer.
            inline_layers,
            inline_fragments,
            # A module of its own may look nothing but a table up, for its caller to add.
            recognize_tables,
            split_fused_linear,
            # Before the transposes sink: those of an image cancel against its layout.
            channels_last_inputs,
            sink_transposes,
            # Now rotations are on (batch, seq, heads, dim).
            recognize_rotary,
            recognize_frequencies,
            # After the transposes: between a projection and its heads stands nothing but the reshape.
            project_heads,
            hoist_results,
            # Before merging: layers that differ by a mask are one graph with a parameter only once the mask is inside.
            sink_producers,
            simplify,
            trim_padding,
            drop_true_conditions,
            recognize_masks,
            # While every graph has one caller; the layers of a tied embedding then stand in one graph.
            lift_shared_layers,
            tie_embeddings,
            share_parameters,
            hand_sizes_down,
            order_values,
            merge_graphs,
            unite_modules,
            align_layers,
            roll_loops,
            hoist_loops,
        ),
    ),
    Level(
        "keras",
        (
            lower_masks,
            fold_transposes,
            softmax_in_float32,
            # Before what is left of rotations becomes a layer of the package.
            use_hub_layers,
            lower_frequencies,
            outline_rotary,
            outline_parameters,
            outline_entry,
            name_graphs,
            name_inputs,
            name_layers,
            name_values,
        ),
    ),
)

# Passes over the program whose sizes are expressed by the config; they are given what its names stand for.
SIZED: tuple[Callable[[Program, Mapping[str, object]], Program], ...] = (pad_heads, merge_sizes)
# Passes over the finished program: with a cached step where it has one, of which they would hide what is cached.
FINAL: tuple[Pass, ...] = (group_queries,)


def every_pass() -> list[tuple[str, Callable[..., Program]]]:
    """Each pass with the name of its level, in the order they run."""
    passes: list[tuple[str, Callable[..., Program]]] = [(level.name, s) for level in PIPELINE for s in level.passes]
    last: tuple[Callable[..., Program], ...] = (*SIZED, *FINAL)
    return [*passes, *((PIPELINE[-1].name, step) for step in last)]


def stage_names() -> list[str]:
    """Names `--emit-ir` takes, in order: the import, then every pass."""
    return ["aten", *(step.__name__ for level in PIPELINE for step in level.passes)]
