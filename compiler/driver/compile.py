"""The pipeline: a source to a Program[keras], its twin beside it."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from hf2khc.capture.frontend import Captured, capture
from hf2khc.capture.generation_defaults import generation_defaults
from hf2khc.capture.source import Source
from hf2khc.diagnostics import ConversionError
from hf2khc.driver.decode import derive_decoding
from hf2khc.driver.decode_positions import NoCache
from hf2khc.driver.depth import UNROLLED, uncounted, with_depth
from hf2khc.driver.generalise import Generalised, generalise
from hf2khc.driver.head import CAUSAL_LM, LOGITS, SEQ_2_SEQ_LM, find_head
from hf2khc.driver.images import with_images
from hf2khc.driver.inspection import NearMiss, idioms, nearest_misses, residue
from hf2khc.driver.modules import Module, modules
from hf2khc.driver.naming import make_plan, make_signature, small_config
from hf2khc.driver.text import with_text
from hf2khc.driver.twin import Twinned
from hf2khc.driver.twin_worker import TwinWorker
from hf2khc.ir.graph import Program
from hf2khc.ir.verify import verify
from hf2khc.passes.pipeline import FINAL, PIPELINE, SIZED
from hf2khc.write.plan import Plan

OnStage = Callable[[str], object]
# Of a captured program for which a second twin is sought: each candidate is captured, which takes a larger one minutes.
MOST_NODES = 800


@dataclass(frozen=True)
class Compiled:
    """A compiled model.

    Args:
        plan: what the writer prints.
        signature: how a program calls both models (the content of signature.json).
        stages: the program after the import and after every pass, by stage name.
        captured: the traced model: its inputs, the sizes of the trace, the layers that were cut.
        generalises: why the package does not follow the config in some place; empty where it does everywhere.
        validation: largest error of each pass on the twin in float64, by stage name; empty without validation.
        twin: what the twin's process found, for building the package at its config.
        cacheless: why a causal language model has no cached step; empty where it has one, and where it is none.
        uncached: the plan of a language model before its cached step was derived.
        textless: why the package makes no inputs of text; empty where it does, and where the model takes none.
        imageless: the same of images.
    """

    plan: Plan
    signature: Mapping[str, object]
    stages: Mapping[str, Program]
    captured: Captured
    generalises: tuple[str, ...] = ()
    validation: Mapping[str, float] = field(default_factory=dict)
    twin: Twinned | None = None
    cacheless: str = ""
    uncached: Plan | None = None
    textless: str = ""
    imageless: str = ""

    @property
    def program(self) -> Program:
        """The program that is printed."""
        return self.plan.program

    @property
    def idioms(self) -> Mapping[str, Mapping[str, int]]:
        """What was recognised, by graph."""
        return idioms(self.program)

    @property
    def residue(self) -> Mapping[str, int]:
        """How often each operation outside every idiom is printed."""
        return residue(self.program)

    @property
    def modules(self) -> tuple[Module, ...]:
        """What became of each module of the model."""
        return modules(self.program)

    @property
    def misses(self) -> tuple[NearMiss, ...]:
        """Where each rule that recognises an idiom came nearest to fitting without doing so."""
        return nearest_misses(self.stages)


def compile_model(
    source: Source, twin: TwinWorker, *, validate: bool = True, on_stage: OnStage = lambda stage: None
) -> Compiled:
    """Trace a model, lower it, and express its sizes by its config.

    Args:
        source: the model.
        twin: compiles the twin meanwhile.
        validate: interpret the twin in float64 before and after every pass.
        on_stage: told the name of each stage as it begins.

    Raises:
        ConversionError: the model cannot be traced or lowered, or a pass changes what it computes.
    """
    try:
        return _compiled(source, twin, validate, on_stage, cut=True)
    except ConversionError as error:
        if error.diagnostics[0].code != UNROLLED:
            raise
        reason = error.diagnostics[0].message
    # Layers that are no one computation are captured and printed one by one.
    compiled = _compiled(source, twin, validate, on_stage, cut=False)
    return replace(compiled, generalises=(*compiled.generalises, f"{reason}: each is printed by itself"))


def _compiled(source: Source, twin: TwinWorker, validate: bool, on_stage: OnStage, cut: bool) -> Compiled:
    twin.submit(source.config, source.model_class, validate, cut, source.examples)
    on_stage("capture")
    captured = capture(source.config, source.model_class, cut, source.examples)
    on_stage("passes")
    stages = lower(captured.program)
    # Layers that are no one computation show here: then nobody need wait for the twin.
    with_depth(list(stages.values())[-1], captured.stacks, {})
    on_stage("validate")
    twinned = twin.result()
    on_stage("generalise")
    last = list(stages.values())[-1]
    result = _generalised(source, last, twinned)
    if not result.aligned and sum(map(len, captured.program.graphs.values())) <= MOST_NODES:
        # Some field changes more than sizes, or no model can be traced with it: the twin that differs in all the others
        # is sought.
        on_stage("validate")
        twin.submit(source.config, source.model_class, validate, cut, source.examples, last)
        again = twin.result()
        on_stage("generalise")
        if again.programs:
            twinned, result = again, _generalised(source, last, again)
    program = with_depth(result.program, captured.stacks, twinned.depth)
    uncut = uncounted(program, captured.stacks, twinned.depth)
    twinned = replace(twinned, kept={**twinned.kept, **uncut})
    head = find_head(source.model_class, captured.program, program, twinned.causal, twinned.depth)
    plan = make_plan(source, program, captured, twinned, head)
    plan = replace(plan, tiny=small_config(plan, captured, twinned, follows=not result.reasons))
    for step in SIZED:
        plan = replace(plan, program=step(plan.program, plan.tiny_values))
    cacheless, uncached = "", None
    if head is not None and head.task == SEQ_2_SEQ_LM:
        plan, left = _logits_alone(plan)
        twinned = replace(twinned, omitted={**twinned.omitted, **left})
    plan, textless = with_text(plan, source)
    plan, imageless = with_images(plan, source)
    textless = "" if plan.preprocessor else textless
    if head is not None and head.task in (CAUSAL_LM, SEQ_2_SEQ_LM):
        uncached = replace(plan, generation=generation_defaults(source))
        plan, cacheless = _with_cache(uncached, captured)
    plan, uncached = _finished(plan), _finished(uncached) if uncached else None
    stages["generalise"] = program
    signature = make_signature(plan, captured, twinned.omitted)
    return Compiled(plan, signature, stages, captured, result.reasons, twinned.errors, twinned, cacheless,
                    uncached, textless, imageless)  # fmt: skip


def _logits_alone(plan: Plan) -> tuple[Plan, dict[str, str]]:
    """The plan of a task that returns what its loss is for; what else the model returns, its backbone does."""
    graph, place = plan.program.main, plan.program.outputs.index(LOGITS)
    entry = graph.replaced(outputs=[graph.outputs[place]])
    graphs = [entry if other.name == entry.name else other for other in plan.program.graphs.values()]
    program = replace(plan.program, outputs=(LOGITS,)).with_graphs(graphs)
    left = dict.fromkeys((path for path in plan.program.outputs if path != LOGITS), "the backbone returns it")
    return replace(plan, program=program, outputs=(plan.outputs[place],)), left


def _with_cache(plan: Plan, captured: Captured) -> tuple[Plan, str]:
    """The plan with a cached step, or why it has none."""
    try:
        masks = [entry.name for entry in captured.spec if entry.role == "mask"]
        program, decoding = derive_decoding(plan.program, masks, plan.values)
    except (NoCache, ConversionError) as reason:
        return plan, str(reason)
    return replace(plan, program=program, decoding=decoding), ""


def _finished(plan: Plan) -> Plan:
    return replace(plan, program=functools.reduce(lambda program, step: step(program), FINAL, plan.program))


def without_cache(compiled: Compiled, reason: str) -> Compiled:
    """The model without its cached step: generation then runs all of it for every token."""
    assert compiled.uncached is not None
    return replace(compiled, plan=compiled.uncached, cacheless=reason)


def at_its_own_sizes(compiled: Compiled) -> Compiled:
    """The model with tests at its own sizes: it is not right at others."""
    assert compiled.twin is not None
    tiny = small_config(compiled.plan, compiled.captured, compiled.twin, follows=False)
    return replace(compiled, plan=replace(compiled.plan, tiny=tiny))


def _generalised(source: Source, program: Program, twinned: Twinned) -> Generalised:
    if not twinned.programs:
        return Generalised(program, (twinned.reason,), aligned=False)
    return generalise(program, twinned.programs, twinned.fields, twinned.depth.values())


def lower(program: Program, after: Callable[[str, Program, Program], None] | None = None) -> dict[str, Program]:
    """Run the pipeline; the program after each stage.

    Args:
        program: Program[aten].
        after: told stage, program before and program after each pass.
    """
    stages = {"aten": program}
    verify(program, "aten")
    for level in PIPELINE:
        for step in level.passes:
            before, program = program, step(program)
            verify(program, level.name if step is level.passes[-1] else None)
            stages[step.__name__] = program
            if after:
                after(step.__name__, before, program)
    if after:
        # They run once the sizes are expressions; what they do to numbers is checked like every pass.
        for sized in SIZED:
            changed = sized(program, {})
            verify(changed, None)
            after(sized.__name__, program, changed)
        for last in FINAL:
            changed = last(program)
            verify(changed, None)
            after(last.__name__, program, changed)
    return stages
