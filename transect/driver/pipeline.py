"""The whole compile, in order. Read this first: every step is a pass of that name."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial

from transect.driver.services import (
    has_transforms,
    library_offers,
    operand_tilings,
    schedule_space,
)
from transect.hardware import schedule_rules
from transect.hardware.schedule_kernels import ScheduleKernels
from transect.relax.transform.attach_global_symbol import AttachGlobalSymbol
from transect.relax.transform.canonicalize import Canonicalize
from transect.relax.transform.collapse_axes import CollapseAxes
from transect.relax.transform.convert_to_dataflow import ConvertToDataflow
from transect.relax.transform.dead_code_elimination import DeadCodeElimination
from transect.relax.transform.eliminate_common_subexpr import EliminateCommonSubexpr
from transect.relax.transform.fold_constant import Evaluate, FoldConstant
from transect.relax.transform.lambda_lift import LambdaLift
from transect.relax.transform.legalize_ops import LegalizeOps
from transect.relax.transform.lift_packing import LiftPacking
from transect.relax.transform.lower_convolution_rank import LowerConvolutionRank
from transect.relax.transform.lower_to_host import LowerToHost
from transect.relax.transform.normalize import Normalize
from transect.relax.transform.pack_constants import PackConstants
from transect.relax.transform.plan_graph import PlanGraph
from transect.relax.transform.plan_layouts import PlanLayouts
from transect.relax.transform.plan_memory import PlanMemory
from transect.relax.transform.remove_unused_functions import RemoveUnusedFunctions
from transect.relax.transform.rewrite_dataflow_reshape import RewriteDataflowReshape
from transect.tir.transform import lowering
from transect.transform import Context, Pipeline


def pipeline(
    context: Context,
    entry: str,
    evaluate: Evaluate | None = None,
    libraries: Collection[str] | None = None,
) -> Pipeline:
    """The passes from an imported or written module to what the back end takes.

    entry: the function that callers run. evaluate: runs what is computed from large constants.
    libraries: the names of those that may be called, all that are installed if None.
    """
    return Pipeline(
        AttachGlobalSymbol((entry,)),
        RemoveUnusedFunctions((entry,)),
        # The graph.
        Normalize(),
        LambdaLift(),
        ConvertToDataflow(),
        LowerConvolutionRank(),
        Canonicalize(),
        FoldConstant(evaluate=evaluate),
        EliminateCommonSubexpr(),
        DeadCodeElimination(),
        # Graph and tensor programs, decided together.
        LegalizeOps(),
        PlanLayouts(schedule_space),
        RewriteDataflowReshape(),
        DeadCodeElimination(),
        PackConstants(schedule_space, operand_tilings, has_transforms),
        PlanGraph(partial(library_offers, names=libraries), schedule_space),
        CollapseAxes(),
        RemoveUnusedFunctions((entry,)),
        ScheduleKernels(schedule_rules(context.target.name)),
        LiftPacking(),
        FoldConstant(evaluate=evaluate),
        RemoveUnusedFunctions((entry,)),
        # The host.
        PlanMemory(),
        LowerToHost(),
        # From blocks to what the back end takes.
        *lowering(context.target),
    )
