"""Disturbs long work as real life does: ``make chaos N=100 SEED=0``.

:mod:`chaos.works` lists the work: a training, an evaluation, an explanation and a grid. :mod:`chaos.disturbances` kills
it, fills its disk, tears its files, steps its clock, starts it twice or deletes its folder. Afterwards the same command
must give what it gives undisturbed, byte by byte of its tensors, and ``asgt verify`` must find that all is as written.
"""
