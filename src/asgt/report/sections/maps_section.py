"""The section of saliency maps; its files are ``figures/saliency…`` and the contact sheet."""

from __future__ import annotations

from typing import Any

from ...comparison.pictures import BLOCKS
from ...explanation.shown_maps import (
    SaliencyMaps,
    class_name,
    coloured,
    map_cells,
    map_rule,
    picture_uri,
    pixels_of,
    row_names,
)
from ..map_files import saliency_names, write_pictures
from ..section import PageRequest, Section

__all__ = ["MAPS"]

TEMPLATE = r"""<section id="maps">
<h2>Saliency maps</h2>
{% for view, map_rule, blocks, map_rows in scenes %}
<p class="note">The first test image of each class{% if view %}, with the shortcut {{ view }}{% endif %}, under the model of each method's first seed; {{ map_rule }}. These maps are examples: a few maps do not show that other maps look alike.</p>
<h3>Before and under attack{% if view %}, shortcut {{ view }}{% endif %}</h3>
<p class="note">How to read the figure: each model is attacked separately. Its map explains the true label before and after the attack. The text below each image is the model's prediction.</p>
<div class="blocks">
{% for block in blocks %}
<div class="scroll" tabindex="0" role="region" aria-label="maps of an image of class {{ block.label }}, before and under attack{% if view %}, shortcut {{ view }}{% endif %}">
<table class="maps block">
<thead><tr><td></td>{% for name, seed in block.methods %}<th scope="col">{{ name | name }}{% if seed is not none %}<span>seed {{ seed }}</span>{% endif %}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in block.rows %}
<tr><th scope="row">{{ row.name | whole }}</th>{% for cell in row.cells %}<td>{% if cell.wrong %}<div class="blank" role="img" aria-label="{{ cell.alt }}">{{ cell.wrong }}</div>{% else %}<img src="{{ cell.source | entire }}" alt="{{ cell.alt }}">{% endif %}{% if cell.words %}<span>{{ cell.words }}</span>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
</div>
<h3>One image of each class{% if view %}, shortcut {{ view }}{% endif %}</h3>
<div class="scroll" tabindex="0" role="region" aria-label="saliency maps{% if view %}, shortcut {{ view }}{% endif %}">
<table class="maps">
<thead><tr><td></td>{% for cell in map_rows[0].cells %}<th scope="col">{{ cell.label }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in map_rows %}
<tr><th scope="row">{{ row.name | name }}{% if row.seed is not none %}<span>seed {{ row.seed }}</span>{% endif %}</th>{% for cell in row.cells %}<td>{% if cell.wrong %}<div class="blank" role="img" aria-label="{{ cell.alt }}">{{ cell.wrong }}</div>{% else %}<img src="{{ cell.source | entire }}" alt="{{ cell.alt }}">{% endif %}{% if cell.words %}<span>{{ cell.words }}</span>{% endif %}</td>{% endfor %}</tr>
{% endfor %}
</tbody>
</table>
</div>
{% endfor %}
{% if scenes %}
<p class="note">For papers: {% for name in map_files %}<a href="figures/{{ name }}.pdf">{{ name }}.pdf</a>, {% endfor %}and the first images on a contact sheet: <a href="figures/contact.pdf">contact.pdf</a>; each also as .png.</p>
{% endif %}
{% for sentence in missing %}
<p class="note">No maps of {{ sentence }}</p>
{% endfor %}
</section>
"""


def _context(page: PageRequest) -> dict[str, Any]:
    pictures = page.summary.maps.pictures
    return {
        "missing": pictures.missing,
        "scenes": [
            (name.partition("+")[2], map_rule(maps), _blocks(maps), _map_rows(maps))
            for name, maps in pictures.shown.items()
            if name.partition("+")[0] == "gradient"
        ],
        "map_files": [name + kind for name in saliency_names(pictures) for kind in ("", "-signed")],
    }


def _write(page: PageRequest) -> None:
    write_pictures(page.summary.maps, page.out / "figures")


def _blocks(maps: SaliencyMaps) -> list[dict[str, Any]]:
    """A table for each of the first images: columns are methods; image, map, attacked image, its map."""

    blocks = []
    for number in range(min(BLOCKS, len(maps.images))):
        names = row_names(maps, number)
        columns = [map_cells(maps, number, column, "magnitude") for column in maps.columns]
        label = class_name(maps, maps.labels[number]) if maps.labels is not None else ""
        rows = []
        for place, name in enumerate(names):
            cells = []
            for column, pictures in zip(maps.columns, columns, strict=True):
                picture, wrong, words = pictures[place]
                what = f"{name}, class {label}, under {column.name}"
                alt = ": ".join(part for part in (what, wrong or words) if part)
                source = "" if wrong else picture_uri(maps, number, picture)
                cells.append({"source": source, "alt": alt, "wrong": wrong, "words": words})
            rows.append({"name": name, "cells": cells})
        blocks.append(
            {"label": label, "methods": [(column.name, column.seed) for column in maps.columns], "rows": rows}
        )
    return blocks


def _map_rows(maps: SaliencyMaps) -> list[dict[str, Any]]:
    """The rows of pictures: the images, then each method's maps; each picture with its words."""

    assert maps.labels is not None
    labels = [class_name(maps, label) for label in maps.labels]
    rows: list[dict[str, Any]] = [
        {
            "name": "image",
            "seed": None,
            "cells": [
                {
                    "source": picture_uri(maps, number, pixels_of(image)),
                    "alt": f"test image of class {label}",
                    "wrong": "",
                    "words": "",
                    "label": label,
                }
                for number, (image, label) in enumerate(zip(maps.images, labels, strict=True))
            ],
        }
    ]
    for column in maps.columns:
        cells = []
        shown = zip(labels, maps.labels, column.maps, column.predictions, strict=True)
        for number, (label, answer, attribution, prediction) in enumerate(shown):
            picture, wrong = coloured(attribution)
            said = class_name(maps, prediction)
            words = f"says {said}" if int(prediction) != int(answer) else ""
            alt = ": ".join(
                part
                for part in (f"saliency map of {column.name}, class {label}", ", ".join(filter(None, (wrong, words))))
                if part
            )
            cells.append(
                {
                    "source": "" if wrong else picture_uri(maps, number, picture),
                    "alt": alt,
                    "wrong": wrong,
                    "words": words,
                    "label": label,
                }
            )
        rows.append({"name": column.name, "seed": column.seed, "cells": cells})
    return rows


MAPS = Section("maps", "Saliency maps", TEMPLATE, _context, _write)
