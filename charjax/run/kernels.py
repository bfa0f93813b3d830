"""Which kernels a run may use: found out once, and remembered by its checkpoints."""

import dataclasses

from charjax.devices import mesh as meshes
from charjax.devices.proof import prove
from charjax.run.plan import Plan


def with_kernels(plan: Plan) -> Plan:
    """The plan with a kernel as its recurrence, if one proves itself on these devices; all
    processes must ask, once they agree on the plan.

    What the run's record says holds on devices like those where it was found, so that a
    resume computes as before.
    """
    kept = None if plan.record is None else plan.record.proof
    symbols = plan.surveyed.text.vocabulary.size
    proof, lines = prove(plan.config, plan.mesh, symbols, kept)
    if proof is None:
        return plan
    recurrence = meshes.recurrence_for(plan.config, plan.mesh, proven=proof.kernels)
    notes = [*plan.notes, *lines]
    return dataclasses.replace(plan, recurrence=recurrence, proof=proof, notes=notes)
