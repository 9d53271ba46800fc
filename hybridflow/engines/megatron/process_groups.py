"""Process groups of a role as Megatron-core takes them."""

from __future__ import annotations

from megatron.core.process_groups_config import ProcessGroupCollection

from hybridflow.parallel.process_groups import Groups


def group_collection(groups: Groups) -> ProcessGroupCollection:
    """Make Megatron's collection. All ranks of the role call it.

    Raises ValueError for context or expert parallelism, of which the layers here know nothing.
    """
    layout = groups.layout
    make = groups.make
    for kind, size in (("context", layout.context), ("expert", layout.expert)):
        if size > 1:
            raise ValueError(f"{kind} parallelism is not supported yet: the layout has {size}, 1 is possible")
    alone = make([[rank] for rank in range(layout.size)])
    # First and last stage reduce the gradients of tied embeddings together; the stages between are in no such group.
    by_stage = [sorted(ranks, key=lambda rank: layout.coordinates[rank].pp) for ranks in layout.groups("pp")]
    ends = make.maybe([sorted({ranks[0], ranks[-1]}) for ranks in by_stage])
    tp = groups.tp
    dp = groups.dp
    replica = groups.replica
    return ProcessGroupCollection(
        tp=tp, pp=groups.pp, dp=dp, cp=alone, ep=alone, mp=replica, dp_cp=dp, tp_cp=tp, tp_ep=tp, expt_tp=alone,
        expt_dp=dp, embd=ends, pos_embd=None, intra_dp_cp=dp, intra_expt_dp=dp, intra_dist_opt=groups.everyone,
        tp_ep_pp=replica, tp_dp_cp=make(layout.groups("tp", "dp")),
    )  # fmt: skip
