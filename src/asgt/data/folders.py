"""The rule that assigns the images of a folder to splits and classes.

``docs/data-layouts.md`` has examples:

1. Only the top folders name splits, in any case: ``train``, ``training``, ``trn``; ``test``, ``testing``, ``tst``;
   ``val``, ``valid``, ``validation``, ``dev``. The folder directly below is the class, at any depth of its files. A
   file name never names a split.
2. Where no top folder is a split, every top folder with images is a class.
3. A top folder called ``train`` that has no folders, next to other folders, is a class. One called ``test`` or ``val``
   that has no folders is not labelled: it is ignored. One that has folders of the classes' names is the test split.
   Next to a name that only looks like a split (``test1``, ``trainA``, ``evaluation``), nothing is a class.
4. ``test`` is the test split; ``val`` where there is no labelled ``test``; without either, a stratified fifth is set
   aside. A lone ``test`` or ``val`` is the test split of data that has no training images.
5. Hidden files, files that are no images, images above the class folders and folders without images are ignored.
6. Folders that these rules do not cover are refused. Ignored files are counted and reported.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from ..errors import InputError
from .spelling import folded, variants
from .split_names import is_split_like, look_like_splits, split_kind
from .tree import Tree

__all__ = [
    "ClassFolders",
    "Labelled",
    "class_folders",
    "counted",
    "has_class_folders",
    "ignored_files",
    "nearest",
    "unwrapped",
]

Labelled = dict[str, list[str]]
"""The paths of the images by class."""

_NAMED = 5
_CONTAINERS = {"images", "image", "imgs", "img", "data", "pictures", "photos", "masks", "labels", "annotations"}
"""Names of folders for their content; next to a folder named as a split, they are not classes."""

_A_SPELLING = 0.8
"""Two names with at least this similarity count as spellings of one name."""


@dataclass
class ClassFolders:
    """The layout of the folders.

    Attributes:
        splits: ``"train"`` and ``"test"``, if present, with the images of each class.
        names: the names of these two folders; ``""`` for training images outside a split folder.
        ignored: descriptions of the ignored files.
    """

    splits: dict[str, Labelled] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)


@dataclass
class _Top:
    """A top folder: its split, the images directly in it, and those of the folders in it."""

    name: str
    kind: str | None
    loose: list[str]
    classes: Labelled

    @property
    def images(self) -> list[str]:
        return sorted([*self.loose, *(path for paths in self.classes.values() for path in paths)])


def has_class_folders(tree: Tree) -> bool:
    """Whether folders define the classes: class folders inside a split, or several top folders that are no splits."""

    tops = _tops(tree)
    splits = [top for top in tops if top.kind is not None]
    plain = len(tops) - len(splits)
    return any(top.classes for top in splits) or plain > 1 or (plain == 1 and splits != [])


def class_folders(tree: Tree) -> ClassFolders:
    """Reads the layout of image folders by the rule above.

    Args:
        tree: its files, images among them.

    Raises:
        InputError: the folders define no classes or splits.
    """

    tops = _tops(tree)
    _refuse_what_cannot_be_told(tree, tops)
    of_kind = {top.kind: top for top in tops if top.kind is not None}
    classes = [top for top in tops if top.kind is None]
    train = of_kind.get("train")
    if train is not None and classes:
        if train.classes:
            others = ", ".join(f"{top.name}/" for top in classes[:_NAMED])
            raise InputError(
                f"{tree.shown()} has {train.name}/ with folders in it next to {others}: splits and classes cannot "
                "be distinguished: give the folder that holds only the splits, or only the classes"
            )
        classes, train = [*classes, train], None

    layout = ClassFolders()
    if classes:
        layout.splits["train"] = {top.name: top.images for top in sorted(classes, key=lambda top: top.name)}
        layout.names["train"] = ""
    elif train is not None:
        if not train.classes:
            _refuse_without_classes(tree, train.name)
        layout.splits["train"] = train.classes
        layout.names["train"] = train.name
    _choose_test_split(tree, of_kind, layout)
    _refuse_variants(tree, layout)
    loose = [path for path in tree.images if "/" not in path]
    loose += [path for top in tops if top.name in layout.names.values() for path in top.loose]
    layout.ignored = [*layout.ignored, *ignored_files(tree, loose), *_empty_folders(tree, layout)]
    return layout


def unwrapped(tree: Tree) -> Tree:
    """An archive's files without a single folder around all of them; a folder's files unchanged.

    A user can give the path of a folder, but not of a folder inside an archive.
    """

    while tree.archive is not None and tree.images and not tree.tables:
        tops = {path.partition("/")[0] for path in tree.images}
        if len(tops) > 1 or split_kind(min(tops)) or min(path.count("/") for path in tree.images) < 2:
            break
        beside = [path for path in tree.others if not path.startswith(f"{min(tops)}/")]
        beside = [*tree.beside, *(tree.inside + path for path in beside)]
        tree = tree.below(min(tops))
        tree.beside = beside
    return tree


def _tops(tree: Tree) -> list[_Top]:
    tops: dict[str, _Top] = {}
    for path in tree.images:
        name, _, rest = path.partition("/")
        if not rest:
            continue
        top = tops.setdefault(name, _Top(name, split_kind(name), [], {}))
        if "/" in rest:
            top.classes.setdefault(rest.partition("/")[0], []).append(path)
        else:
            top.loose.append(path)
    return list(tops.values())


def _refuse_what_cannot_be_told(tree: Tree, tops: list[_Top]) -> None:
    where = tree.shown()
    if not tops:
        raise InputError(
            f"{where} has {counted(len(tree.images), 'image')} and no class folders: put the images of "
            "each class in its own folder"
        )
    kinds: dict[str, str] = {}
    for top in tops:
        if top.kind is not None and kinds.setdefault(top.kind, top.name) != top.name:
            raise InputError(f"{where} has two {top.kind} splits, {kinds[top.kind]}/ and {top.name}/: remove one")

    plain = [top for top in tops if top.kind is None]
    if len(tops) == 1 and plain and tops[0].classes and len({path.rpartition("/")[0] for path in tree.images}) > 1:
        raise InputError(f"{where} contains only the folder {tops[0].name}: give {tree.shown(_innermost(tree))}")
    if pair := look_like_splits([top.name for top in tops]):
        raise InputError(
            f"{where} has {pair[0]}/ and {pair[1]}/, which look like splits, not classes: rename them to train and test"
        )
    _refuse_doubtful_splits(tree, tops)
    inside = {top.name: [name for name in top.classes if split_kind(name)] for top in plain}
    with_splits = [name for name, names in inside.items() if names]
    for top in plain:
        kinds_inside = {split_kind(name) for name in inside[top.name]}
        deep = any(path.count("/") > 2 for name in inside[top.name] for path in top.classes[name])
        if len(with_splits) > 1 or len(kinds_inside) > 1 or (kinds_inside and deep):
            example = with_splits[0]
            raise InputError(
                f"{where} has splits below {', '.join(f'{name}/' for name in with_splits[:_NAMED])} (as "
                f"{example}/{inside[example][0]}/): give one of these folders, or move the splits to the top"
            )


def _refuse_doubtful_splits(tree: Tree, tops: list[_Top]) -> None:
    """Refuses a folder called as a split beside one that looks like a split, and a split folder in a split folder."""

    splits = [top for top in tops if top.kind is not None]
    for top in tops:
        flat = [split for split in splits if split.kind == "train" and not split.classes]
        doubtful = splits if is_split_like(top.name) else flat if top.name.strip().casefold() in _CONTAINERS else []
        if top.kind is None and doubtful:
            raise InputError(
                f"{tree.shown()} has {top.name}/ next to {doubtful[0].name}/: it does not look like a class: call "
                "the splits train and test, with a folder for each class in them, or move it away"
            )
    for top in splits:
        inner = next(iter(top.classes), "")
        deep = any(path.count("/") > 2 for path in top.classes.get(inner, []))
        if len(top.classes) == 1 and split_kind(inner) is not None and (deep or top.kind == "train"):
            raise InputError(
                f"{tree.shown(top.name)} contains only the folder {inner}/: move its content one folder up"
            )


def _innermost(tree: Tree) -> str:
    """The folder to give instead of one that only wraps it."""

    parents = [path.split("/")[:-1] for path in tree.images if "/" in path]
    shared: list[str] = []
    for names in zip(*parents, strict=False):
        if len(set(names)) > 1 or split_kind(names[0]):
            break
        shared.append(names[0])
    return "/".join(shared)


def _refuse_without_classes(tree: Tree, name: str) -> NoReturn:
    raise InputError(
        f"{tree.shown(name)} has images and no class folders: put the images of each class in its own "
        f"folder, such as {name}/cat/1.png"
    )


def _choose_test_split(tree: Tree, of_kind: Mapping[str, _Top], layout: ClassFolders) -> None:
    """Adds the test split to a layout: ``test`` before ``val``, the first that is labelled."""

    train = layout.splits.get("train")
    candidates = [of_kind[kind] for kind in ("test", "val") if kind in of_kind]
    for top in candidates:
        count = counted(len(top.images), "image")
        if "test" in layout.splits:
            layout.ignored.append(f"{count} in {top.name}/, for {layout.names['test']}/ is the test split")
        elif not top.classes:
            layout.ignored.append(f"{count} in {top.name}/, which has no class folders, so no labels")
        elif train is not None and not _are_classes(tree, top, train):
            folders = ", ".join(f"{name}/" for name in list(top.classes)[:_NAMED])
            layout.ignored.append(f"{count} in {top.name}/, whose folders ({folders}) are not classes")
        else:
            layout.splits["test"] = top.classes
            layout.names["test"] = top.name
    if not layout.splits:
        _refuse_without_classes(tree, candidates[0].name)


def _are_classes(tree: Tree, top: _Top, train: Labelled) -> bool:
    """Whether the folders of a test split are classes of the training split; ``False`` where none of them is.

    Raises:
        InputError: some are and some are not, or one is a class but for its spelling.
    """

    strange = [name for name in top.classes if name not in train]
    if not strange:
        return True
    near = nearest(strange[0], train)
    if len(strange) == len(top.classes) and not any(nearest(name, train, _A_SPELLING) for name in strange):
        return False
    hint = f" (did you mean {near!a}?)" if near else ""
    raise InputError(
        f"{tree.shown(top.name)} has the class {strange[0]!a}{hint}, which has no training images: rename or remove it"
    )


def nearest(name: str, known: Iterable[str], cutoff: float = 0.5) -> str | None:
    """The known name that is most like a name, however it is spelled, if it is alike by ``cutoff`` or more."""

    by_key = {folded(each).casefold(): each for each in known}
    near = difflib.get_close_matches(folded(name).casefold(), by_key, n=1, cutoff=cutoff)
    return by_key[near[0]] if near else None


def _refuse_variants(tree: Tree, layout: ClassFolders) -> None:
    for name, classes in layout.splits.items():
        if pair := variants(classes):
            raise InputError(
                f"{tree.shown(layout.names[name])} has the folders {pair[0]!a} and {pair[1]!a}, which differ in "
                "blanks, case or Unicode form only: rename one"
            )


def ignored_files(tree: Tree, loose: list[str]) -> list[str]:
    """Describes the files of a tree that are not read.

    Args:
        tree: the files.
        loose: images outside class folders.
    """

    said = []
    if loose:
        said.append(f"{counted(len(loose), 'image')} above the class folders ({_few(loose)})")
    if tree.others:
        said.append(f"{counted(len(tree.others), 'file')} that no image decoder reads ({_few(tree.others)})")
    if tree.beside:
        folder = tree.inside.rstrip("/")
        said.append(f"{counted(len(tree.beside), 'file')} outside the folder {folder} ({_few(tree.beside)})")
    if tree.hidden:
        said.append(counted(tree.hidden, "hidden file or folder", "hidden files or folders"))
    if tree.links:
        said.append(counted(tree.links, "link to a folder around it", "links to a folder around them"))
    return said


def _empty_folders(tree: Tree, layout: ClassFolders) -> list[str]:
    """Folders in the place of a class that have no images."""

    prefixes = [f"{name}/" if name else "" for name in layout.names.values()]
    filled = {"/".join(path.split("/")[:depth]) for path in tree.images for depth in (1, 2)}
    empty = [
        folder
        for folder in tree.folders
        if folder not in filled
        and (folder.count("/") == 0 or any(p and folder.startswith(p) and folder.count("/") == 1 for p in prefixes))
    ]
    return [f"{counted(len(empty), 'folder')} without images ({_few(empty)})"] if empty else []


def _few(paths: list[str]) -> str:
    return ", ".join(paths[:3]) + (", …" if len(paths) > 3 else "")


def counted(count: int, noun: str, plural: str | None = None) -> str:
    """``1 image``, ``2 images``."""

    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
