"""The payload: faces with their person to train on, pairs of faces to verify."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset

from channels.checks import check_choice
from semsim.files.incoming import check_regular, reading, shown
from semsim.mistakes import looked_in
from semsim.payloads.imagefile import SUFFIXES, open_image
from semsim.payloads.images import check_counts, fit, refuse_idle, to_float, to_tensor
from semsim.payloads.kept import Kept, written
from semsim.seeds import stream
from semsim.vision.faces.drawing import draw_face, person, shot

Split = Literal["train", "val", "test"]
SHARES = (0.6, 0.75)  #: of people up to which train and val reach, where no file of pairs says
KINDS = (*SUFFIXES, ".pgm")
KEEP_BYTES = 1 << 29  #: of faces kept in memory
_KEPT = Kept(KEEP_BYTES)


class Picture(NamedTuple):
    """One face before anybody looked at it: of whom, and which shot or file."""

    who: int
    shot: int
    file: Path | None = None


class FacePictures:
    """The pictures of one split, drawn or in files, one or more of each person.

    Args:
        split: which people.
        path: the folder, or None for drawn faces; see :class:`Faces`.
        people: drawn people to train on.
        shots: pictures of each drawn person.
        size: side in pixels; files are scaled and cut.
        seed: decides drawn faces.
    """

    def __init__(
        self, split: Split, *, path: str | None, people: int, shots: int, size: int, seed: int
    ) -> None:
        check_choice("split", split, ("train", "val", "test"))
        check_counts(people=people, shots=shots, size=size)
        self.split, self.size, self.seed = split, size, seed
        self.listed: list[tuple[Picture, Picture]] | None = None  # pairs that a file lists
        if path is None:
            self.key: tuple[Any, ...] = (size, seed)
            self.pictures = _drawn(split, people, shots)
        else:
            self.key = (str(Path(path).resolve()), size)
            self.pictures, self.listed = _of_folder(Path(path), split)
        if not self.pictures:
            raise ValueError(
                f"split {split} has nobody: of the people in path {shown(path or '')} 60 % train, "
                "15 % validate and the rest test, or as pairs.txt says; add people"
            )

    def pixels(self, picture: Picture) -> Tensor:
        """Return one face, uint8 [3, size, size]."""
        key = (*self.key, picture, written(picture.file))
        (found,) = _KEPT.get(key, lambda: (self._pixels(picture),))
        return found

    def check_files(self) -> None:
        """Read every file; ValueError names the first that will not do."""
        for picture in self.pictures:
            if picture.file is not None:
                self.pixels(picture)

    def _pixels(self, picture: Picture) -> Tensor:
        if picture.file is not None:
            image = fit(open_image(picture.file), self.size, self.size, what=shown(picture.file))
            return to_tensor(image)
        generator = stream(self.seed, "face", picture.who, picture.shot)
        seen, traits = shot(generator), person(picture.who, self.seed)
        return (255 * draw_face(traits, seen, self.size, generator)).round().to(torch.uint8)


class Faces(FacePictures, Dataset[tuple[Tensor, int]]):
    """Faces and who they are (``train``), or pairs of people that nobody trained on.

    A pair is [6, size, size]: the probe, which is sent, then the picture that was enrolled, which
    the verifier has. Its target is 1 where both are of the same person. Half of the drawn pairs
    are, unless ``pairs`` says otherwise. Those of ``pairs.txt`` come in its own order, of which
    ``count`` takes the first: of LFW's, 400 are 300 genuine pairs and 100 others.

    Without ``path`` faces are drawn, see :mod:`semsim.vision.faces.drawing`. A ``path`` holds a
    folder per person, as AT&T (``s1/1.pgm``), LFW (``Name/Name_0001.jpg``) or an aligned copy of it
    do. Where ``pairs.txt`` lies in it or in the folder above, as LFW has it, its pairs are those of
    ``test``, and nobody in them is trained on; else the first 60 % of the people train, the next
    15 % validate and the rest test.

    Args:
        split: which people.
        count: pairs; None for all of ``pairs.txt``, else for 400.
        path: the folder, or None for drawn faces.
        pairs: ``both`` kinds, ``genuine`` or ``impostor``.
        people: drawn people to train on; a quarter as many validate, and a third test.
        shots: pictures of each drawn person.
        size: side in pixels; files are scaled and cut.
        seed: decides drawn faces and pairs.
    """

    name = "faces"

    def __init__(
        self,
        split: Split = "test",
        *,
        count: int | None = None,
        path: str | None = None,
        pairs: Literal["both", "genuine", "impostor"] = "both",
        people: int = 120,
        shots: int = 16,
        size: int = 48,
        seed: int = 0,
    ) -> None:
        check_counts(count=count)
        check_choice("pairs", pairs, ("both", "genuine", "impostor"))
        if path is not None:
            refuse_idle(Faces, "with the files of a path", people=people, shots=shots)
        if shots < 2:
            raise ValueError(f"shots is at least 2, so that there are pairs, got {shots}")
        super().__init__(split, path=path, people=people, shots=shots, size=size, seed=seed)
        self.people = len({picture.who for picture in self.pictures})
        self.pairs: list[tuple[Picture, Picture]] = []
        if split != "train":
            made = self.listed or _pairs(self.pictures, count or 400, pairs, seed, split)
            wanted = {"both": (True, False), "genuine": (True,), "impostor": (False,)}[pairs]
            self.pairs = [pair for pair in made if _same(pair) in wanted][:count]
            if not self.pairs:
                raise ValueError(f"pairs {pairs} are none of those in pairs.txt; write pairs: both")

    def __len__(self) -> int:
        return len(self.pairs if self.split != "train" else self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.name} has {len(self)} items, asked for number {index}")
        if self.split == "train":
            picture = self.pictures[index]
            return to_float(self.pixels(picture)), picture.who
        pair = self.pairs[index]
        return to_float(torch.cat([self.pixels(picture) for picture in pair])), int(_same(pair))


def everyone(faces: FacePictures) -> tuple[Tensor, Tensor]:
    """Return all faces of a split, uint8 [N, 3, size, size], and who they are [N]."""
    pixels = torch.stack([faces.pixels(picture) for picture in faces.pictures])
    return pixels, torch.tensor([picture.who for picture in faces.pictures])


def _same(pair: tuple[Picture, Picture]) -> bool:
    return pair[0].who == pair[1].who


def _drawn(split: str, people: int, shots: int) -> list[Picture]:
    """Return drawn pictures; numbers of people of different splits differ."""
    counts = {"train": people, "val": max(2, people // 4), "test": max(2, people // 3)}
    first = {"train": 0, "val": 1_000_000, "test": 2_000_000}[split]
    return [Picture(first + w, s) for w in range(counts[split]) for s in range(shots)]


def _pairs(
    pictures: list[Picture], count: int, kind: str, seed: int, split: str
) -> list[tuple[Picture, Picture]]:
    """Return pairs at random, genuine and impostor in turn unless one kind is asked for."""
    of = dict[int, list[Picture]]()
    for picture in pictures:
        of.setdefault(picture.who, []).append(picture)
    several = [who for who, own in of.items() if len(own) > 1]
    if len(of) < 2 or not several:
        raise ValueError(
            f"split {split} has {len(of)} people, of which {len(several)} have several pictures; "
            "pairs need two people and one with two pictures"
        )
    everybody, made = list(of), []
    for index in range(count):
        u = torch.rand(4, generator=stream(seed, "pair", split, index)).tolist()
        genuine = kind == "genuine" or (kind == "both" and index % 2 == 0)
        if genuine:
            who = other = several[int(u[0] * len(several))]
        else:
            a = int(u[0] * len(everybody))
            b = (a + 1 + int(u[1] * (len(everybody) - 1))) % len(everybody)
            who, other = everybody[a], everybody[b]
        at = int(u[2] * len(of[who]))
        step = 1 + int(u[3] * (len(of[who]) - 1)) if genuine else 0
        there = (at + step) % len(of[who]) if genuine else int(u[3] * len(of[other]))
        made.append((of[who][at], of[other][there]))
    return made


def _of_folder(
    root: Path, split: str
) -> tuple[list[Picture], list[tuple[Picture, Picture]] | None]:
    """Return the pictures of a split, and its pairs where a file lists them."""
    if not root.is_dir():
        raise ValueError(
            f"path {shown(root)} is no folder{looked_in(root)}; name one with a folder per person"
        )
    names = sorted((d.name for d in root.iterdir() if d.is_dir()), key=_natural)
    files = {name: _files(root / name) for name in names}
    files = {name: found for name, found in files.items() if found}
    if len(files) < 2:
        raise ValueError(f"path {shown(root)} holds no two folders with pictures, one per person")
    number = {name: index for index, name in enumerate(files)}
    of = {
        name: [Picture(number[name], shot, file) for shot, file in enumerate(found)]
        for name, found in files.items()
    }
    lists = [p for p in (root / "pairs.txt", root.parent / "pairs.txt") if p.is_file()]
    if lists:
        pairs, tested = _listed(lists[0], of)
        rest = [name for name in of if name not in tested]
        cut = round(0.8 * len(rest))
        chosen = {"train": rest[:cut], "val": rest[cut:], "test": sorted(tested)}[split]
    else:
        pairs, (a, b) = None, (round(share * len(of)) for share in SHARES)
        chosen = {"train": list(of)[:a], "val": list(of)[a:b], "test": list(of)[b:]}[split]
    renumbered = {name: index for index, name in enumerate(chosen)} if split == "train" else number
    pictures = [p._replace(who=renumbered[name]) for name in chosen for p in of[name]]
    return pictures, pairs if split == "test" else None


def _natural(name: str) -> tuple[str, int]:
    """Return a key by which s10 comes after s9."""
    digits = len(name) - len(name.rstrip("0123456789"))
    return (name[: len(name) - digits], int(name[len(name) - digits :] or 0))


def _files(folder: Path) -> list[Path]:
    found = (f for f in folder.iterdir() if f.suffix.lower() in KINDS and f.is_file())
    return sorted(found, key=lambda f: _natural(f.stem))


def _listed(
    path: Path, of: dict[str, list[Picture]]
) -> tuple[list[tuple[Picture, Picture]], set[str]]:
    """Return the pairs of LFW's ``pairs.txt`` and the people in them.

    Tab-separated lines of three fields are genuine (name, number, number), of four impostors (name,
    number, name, number); numbers are those in the file names. A first line of counts is left out.
    """
    check_regular(path, "LFW's pairs.txt")
    pairs, tested = [], set()
    with reading(path, "LFW's pairs.txt", "get it from its source again"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            part = line.split()
            if len(part) in (3, 4):
                first = (part[0], part[1])
                second = (part[0], part[2]) if len(part) == 3 else (part[2], part[3])
                pairs.append((_numbered(of, *first, number), _numbered(of, *second, number)))
                tested |= {first[0], second[0]}
    if not pairs:
        raise ValueError(f"{shown(path)} lists no pair; lines are: name, number, number")
    return pairs, tested


def _numbered(of: dict[str, list[Picture]], name: str, number: str, line: int) -> Picture:
    """Return a person's picture by the number at the end of its file name."""
    for picture in of.get(name, []):
        if picture.file is not None and _natural(picture.file.stem)[1] == int(number):
            return picture
    raise ValueError(f"line {line} names picture {number} of {name}, which is not there")
