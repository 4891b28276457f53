"""Finds faults of the command line with odd input: ``make fuzz N=1000 SEED=0``.

A case is a folder and a command line in it (:mod:`fuzz.cases`). Each family makes its cases with strategies of
hypothesis: command lines (:mod:`fuzz.lines`), YAML and JSON documents (:mod:`fuzz.documents`), damaged folders
(:mod:`fuzz.damage`), folders of images (:mod:`fuzz.pictures`) and tables (:mod:`fuzz.tables`). :mod:`fuzz.runner` runs
them in forked children, :mod:`fuzz.outcomes` says how they ended, and :mod:`fuzz.shrinking` makes a fault small.
"""
