"""The interactive page: look at models by hand, an image at a time.

What is shown is computed in modules that know nothing of a page: which models and images there are
(:mod:`~asgt.app.bench`), what can be chosen (:mod:`~asgt.app.choices`), a picture of the user's own
(:mod:`~asgt.app.own_picture`), what an attack does to one image (:mod:`~asgt.app.followed`) and all that is seen of it
(:mod:`~asgt.app.looking`). :mod:`~asgt.app.drawn` makes it HTML, with every text escaped, and only
:mod:`~asgt.app.blocks` and :mod:`~asgt.app.serving` need the extra ``app``.
"""
