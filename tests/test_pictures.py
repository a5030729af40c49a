"""The pictures of each family against transformers' Pillow processors: every value, size, grid, count and text."""

from pathlib import Path

import numpy as np
import pytest
import transformers
from PIL import Image
from test_pixels import picture

from lime_mlx.errors import CheckpointError, MediaError
from lime_mlx.media.anyres import RESOLUTIONS, AnyResolution, best_resolution, unpadded
from lime_mlx.media.crops import Crops, crops_text
from lime_mlx.media.image import open_image
from lime_mlx.media.patches import Patches
from lime_mlx.media.splits import Splits, splits_text

JPEGS = Path(__file__).resolve().parents[2] / "shared" / "data" / "images"
SIZES = [
    (90, 30),
    (30, 90),
    (3, 200),
    (7, 7),
    (1, 1),
    (28, 28),
    (151, 113),
    (64, 65),
    (50, 40),
    (64, 25),
    (83, 37),
    (37, 83),
]
FILTERS = [0, 1, 2, 3]
SCAN = {
    "do_pan_and_scan": True,
    "pan_and_scan_min_crop_size": 24,
    "pan_and_scan_max_num_crops": 3,
    "pan_and_scan_min_ratio_to_activate": 1.25,
}
HALF = [0.5, 0.5, 0.5]
PLAIN = {"do_rescale": False, "do_normalize": False}
OTHER = {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 0.5, 0.25], "image_std": [0.25, 0.5, 1.0]}
PLAINER = {"do_normalize": False, "resample": 0, "do_convert_rgb": None}
NEXT = {"size": {"shortest_edge": 28}, "crop_size": {"height": 28, "width": 28}, "do_pad": True}
POINTS = {"image_grid_pinpoints": [[28, 56], [56, 28], [56, 56], [84, 28], [28, 112]]}
QWEN = {"size": {"shortest_edge": 56 * 56, "longest_edge": 112 * 84}}
TILES = {"size": {"longest_edge": 96}, "max_image_size": {"longest_edge": 32}}
SQUARE = {"size": {"height": 40, "width": 40}}

# family: oracle, ours, settings of a real checkpoint, small settings
FAMILIES = {
    "llava_next": (
        "LlavaNextImageProcessorPil",
        lambda settings: AnyResolution.from_dict(settings, (settings.get("crop_size") or {"height": 336})["height"]),
        [{"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}, "image_grid_pinpoints": None}],
        [
            {**NEXT, **POINTS},
            *({**NEXT, **POINTS, "resample": kind} for kind in FILTERS),
            *({**NEXT, **POINTS, **more} for more in (PLAIN, OTHER, PLAINER, {"do_resize": False})),
            {**NEXT, **POINTS, "size": {"shortest_edge": 33}},
            {**NEXT, **POINTS, "size": {"height": 20, "width": 35}},
            {**NEXT, **POINTS, "size": {"height": 28, "width": 28}, "do_center_crop": False},
        ],
    ),
    "qwen2_vl": (
        "Qwen2VLImageProcessorPil",
        Patches.from_dict,
        [
            {},
            {"min_pixels": 3136, "max_pixels": 12845056, "image_mean": None},
            {"size": {"shortest_edge": 65536, "longest_edge": 1 << 24}, "patch_size": 16, "image_mean": HALF},
        ],
        [
            QWEN,
            *({**QWEN, "resample": kind} for kind in FILTERS),
            *({**QWEN, **more} for more in (PLAIN, OTHER, PLAINER)),
            {**QWEN, "patch_size": 16, "temporal_patch_size": 1, "merge_size": 1},
            {**QWEN, "patch_size": 5, "temporal_patch_size": 3, "merge_size": 3},
            {**QWEN, "min_pixels": 1, "max_pixels": 28 * 28},
            {"min_pixels": 1, "max_pixels": 7000},
        ],
    ),
    "idefics3": (
        "Idefics3ImageProcessorPil",
        Splits.from_dict,
        [{}],
        [
            TILES,
            *({**TILES, "resample": kind} for kind in FILTERS),
            *({**TILES, **more} for more in (PLAIN, OTHER, PLAINER, {"do_resize": False})),
            {**TILES, "do_image_splitting": False},
            {**TILES, "size": {"longest_edge": 95}},
            {**TILES, "size": {"height": 70, "width": 31}},
            {**TILES, "size": {"longest_edge": 32}},
        ],
    ),
    "smolvlm": (
        "SmolVLMImageProcessorPil",
        Splits.from_dict,
        [{"size": {"longest_edge": 1536}, "max_image_size": {"longest_edge": 384}, "do_pad": True}],
        [TILES, {**TILES, "do_image_splitting": False}],
    ),
    "gemma3": (
        "Gemma3ImageProcessorPil",
        lambda settings: Crops.from_dict(settings, settings["size"]["height"]),
        [{"size": {"height": 896, "width": 896}, "do_pan_and_scan": None, "do_convert_rgb": None}],
        [
            SQUARE,
            *({**SQUARE, "resample": kind} for kind in FILTERS),
            *({**SQUARE, **more} for more in (PLAIN, OTHER, PLAINER)),
            {**SQUARE, **SCAN},
            {**SQUARE, **SCAN, "pan_and_scan_min_crop_size": 3, "pan_and_scan_max_num_crops": 20},
            {**SQUARE, **SCAN, "pan_and_scan_max_num_crops": 1},
        ],
    ),
}
SMALL = [
    pytest.param(family, given, id=f"{family}-{i}")
    for family in FAMILIES
    for i, given in enumerate(FAMILIES[family][3])
]


def modes() -> list[Image.Image]:
    base = picture(75, 45)
    faded = base.convert("RGBA")
    faded.putalpha(Image.fromarray(np.tile(np.arange(75, dtype=np.uint8) * 3, (45, 1))))
    palette = base.quantize(16)
    clear = palette.copy()
    clear.info["transparency"] = 3
    return [base.convert("L"), base.convert("1"), base.convert("CMYK"), faded, faded.convert("LA"), palette, clear]


def oracle(name, settings):
    if not hasattr(transformers, name):
        pytest.skip(f"this transformers has no {name}")
    return getattr(transformers, name)(**{key: value for key, value in settings.items() if value is not None})


def same(family, settings, images):
    """One call with all of `images`."""
    name, read, *_ = FAMILIES[family]
    ours, theirs = read(settings), oracle(name, settings)
    rows = {"return_row_col_info": True} if "return_row_col_info" in theirs.valid_kwargs.__annotations__ else {}
    found, wanted = ours(images), theirs(images, return_tensors="np", **rows)
    assert set(found) == set(wanted) - {"rows", "cols"}
    for key, value in found.items():
        np.testing.assert_array_equal(value, np.asarray(wanted[key]), err_msg=key)
    assert found["pixel_values"].dtype == np.float32
    if rows:
        assert [ours.grid(image) for image in images] == list(zip(wanted["rows"][0], wanted["cols"][0], strict=True))


@pytest.mark.parametrize(("family", "settings"), SMALL)
def test_small_pictures(family, settings):
    same(family, settings, [picture(*size) for size in SIZES])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_mode(family):
    for image in modes():
        same(family, FAMILIES[family][3][0], [image])


@pytest.mark.parametrize("family", FAMILIES)
def test_photographs(family):
    paths = sorted(JPEGS.rglob("*.jpg"))[::30]
    if not paths:
        pytest.skip("the photographs of shared/data/images are not here")
    images = [open_image(path) for path in paths[:2]]
    for settings in FAMILIES[family][2]:
        same(family, settings, images)


def test_long_pictures():
    """Pixel limits of a real checkpoint, which the small ones have not."""
    same("qwen2_vl", {}, [picture(30, 2000), picture(2000, 1500)])


def sizes(most=1500):
    return np.random.default_rng(0).integers(1, most, (300, 2)).tolist()


@pytest.mark.parametrize("points", [RESOLUTIONS, [[336, 336]], [[672, 336], [336, 1344], [1008, 1008]]], ids=str)
@pytest.mark.parametrize("patch", [14, 16])
def test_anyres_counts(points, patch):
    points = [list(point) for point in points]
    theirs = transformers.LlavaNextProcessor.__new__(transformers.LlavaNextProcessor)
    theirs.image_processor = oracle("LlavaNextImageProcessorPil", {"image_grid_pinpoints": points})
    theirs.patch_size, theirs.num_additional_image_tokens, edge = patch, 0, 336 // patch
    ours = AnyResolution.from_dict({"image_grid_pinpoints": points}, 336)
    for size in sizes():
        count = theirs._get_number_of_features(*size, 336, 336)
        assert ours.tokens(size, edge) == count
        tall, wide = best_resolution(size, points)
        rows = tall // 336 * edge - 2 * unpadded((tall // 336 * edge, wide // 336 * edge), size)[0]
        assert count - ours.tokens(size, edge, newline=False) == rows


def test_anyres_by_hand():
    """A 1:2 picture fills 336 x 672; one of 100 x 400 fills 168 of its rows: 12 of 24, 6 off at each end."""
    assert best_resolution((500, 1000), RESOLUTIONS) == (336, 672)
    assert unpadded((24, 48), (500, 1000)) == (0, 0)
    assert unpadded((24, 48), (100, 400)) == (6, 0)
    read = AnyResolution.from_dict({"image_grid_pinpoints": [[336, 672]]}, 336)
    assert read.tokens((500, 1000), 24) == 24 * 24 + 24 * 49
    assert read.tokens((100, 400), 24) == 24 * 24 + 12 * 49
    assert read.tokens((100, 400), 24, newline=False) == 24 * 24 + 12 * 48


@pytest.mark.parametrize(("patch", "merge"), [(14, 2), (16, 2), (5, 3)])
def test_patch_sizes(patch, merge):
    settings = {"patch_size": patch, "merge_size": merge, "min_pixels": 5000, "max_pixels": 300_000}
    ours, theirs = Patches.from_dict(settings), oracle("Qwen2VLImageProcessorPil", settings)
    for height, width in sizes(3000):
        if max(height, width) > 200 * min(height, width):
            continue
        tall, wide = ours.size(Image.new("1", (width, height)))
        assert tall * wide // patch**2 == theirs.get_number_of_image_patches(height, width)
        assert not tall % (patch * merge) and not wide % (patch * merge)


def test_patches_by_hand():
    """Two windows of 2 x 2 pixels side by side, each pixel a patch: window after window, each patch twice."""
    read = Patches.from_dict({"patch_size": 1, "do_resize": False, **PLAIN})
    levels = np.arange(8, dtype=np.uint8).reshape(2, 4)
    found = read([Image.fromarray(np.stack([levels, levels + 10, levels + 20], axis=-1))])
    assert found["image_grid_thw"].tolist() == [[1, 2, 4]]
    assert found["pixel_values"][:, 0].tolist() == [0, 1, 4, 5, 2, 3, 6, 7]
    assert found["pixel_values"][6].tolist() == [6, 6, 16, 16, 26, 26]
    assert read.tokens(np.array([[1, 2, 4], [1, 6, 4]])) == [2, 6]


@pytest.mark.parametrize(("rows", "columns"), [(0, 0), (1, 2), (3, 4)])
def test_splits_text(rows, columns):
    from transformers.models.idefics3.processing_idefics3 import Idefics3Processor
    from transformers.models.smolvlm.processing_smolvlm import get_image_prompt_string

    found = splits_text(rows, columns, 5)
    assert found == get_image_prompt_string(
        rows, columns, 5, "<fake_token_around_image>", "<image>", global_image_token="<global-img>"
    )
    assert found.count("<image>") == 5 * (rows * columns + 1)
    theirs = Idefics3Processor.__new__(Idefics3Processor)
    theirs.image_seq_len, theirs.image_token = 5, "<image>"
    theirs.fake_image_token, theirs.global_image_tag = "<fake_token_around_image>", "<global-img>"
    assert found == theirs.replace_image_token({"rows": [[9, rows]], "cols": [[9, columns]]}, 1)


@pytest.mark.parametrize("crops", [0, 1, 3])
def test_crops_text(crops):
    theirs = transformers.Gemma3Processor.__new__(transformers.Gemma3Processor)
    theirs.full_image_sequence = "\n\n<start_of_image>" + "<image_soft_token>" * 4 + "<end_of_image>\n\n"
    assert crops_text(crops, 4) == theirs.replace_image_token({"num_crops": [7, crops]}, 1)


def test_rows_and_columns():
    ours, theirs = Splits.from_dict(TILES), oracle("Idefics3ImageProcessorPil", TILES)
    for height, width in sizes():
        rows, columns = ours.grid(Image.new("1", (width, height)))
        _, wanted_rows, wanted_columns = theirs.get_number_of_image_patches(height, width)
        assert (rows, columns) == (wanted_rows, wanted_columns)


READERS = {
    "anyres": lambda settings: AnyResolution.from_dict(settings, 28),
    "patches": Patches.from_dict,
    "splits": Splits.from_dict,
    "crops": lambda settings: Crops.from_dict(settings, 28),
}
SETTINGS = """size crop_size resample do_resize do_rescale rescale_factor do_normalize image_mean image_std
do_convert_rgb do_pad do_center_crop min_pixels max_pixels patch_size merge_size temporal_patch_size max_image_size
do_image_splitting""".split()


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_null_is_missing(read):
    points = {"image_grid_pinpoints": [[28, 56]]}
    assert read({**dict.fromkeys([*SETTINGS, *SCAN]), **points}) == read(points)
    assert read({**points, "image_std": 0.25}) != read(points)


@pytest.mark.parametrize(
    ("kind", "settings", "words"),
    [
        *((kind, settings, "cannot be used") for kind in READERS for settings in [
            {"resample": 9}, {"image_std": 0}, {"image_mean": [1, 2]}, {"rescale_factor": "x"}, {"size": "28"},
            {"size": {"height": 28}}, {"size": {"width": 28, "height": -28}}, {"size": {}},
        ]),
        ("anyres", {"image_grid_pinpoints": [[30, 56]]}, "multiples of 28"),
        ("anyres", {"image_grid_pinpoints": []}, "multiples of 28"),
        ("anyres", {"image_grid_pinpoints": [[28, 56, 84]]}, "multiples of 28"),
        ("anyres", {"image_grid_pinpoints": 28}, "multiples of 28"),
        ("anyres", {"image_grid_pinpoints": [[28, 56]], "crop_size": 56}, "28 x 28"),
        ("anyres", {"image_grid_pinpoints": [[28, 56]], "crop_size": 56, "do_center_crop": False,
                    "size": {"height": 28, "width": 28}}, "28 x 28"),
        ("anyres", {"size": "28", "do_resize": False}, "cannot be used"),
        ("patches", {"size": 28}, "cannot be used"),
        ("patches", {"size": {"height": 28, "width": 28}}, "height, width is not supported"),
        ("patches", {"size": {"shortest_edge": 28}}, "is not supported"),
        ("patches", {"patch_size": 0}, "patch_size"),
        ("patches", {"merge_size": 1.5}, "merge_size"),
        ("patches", {"min_pixels": "many"}, "min_pixels"),
        ("splits", {"size": {"shortest_edge": 28}}, "shortest_edge"),
        ("splits", {"size": {"longest_edge": 9999}}, "1 to"),
        ("splits", {"max_image_size": {"height": 28, "width": 28}}, "longest_edge"),
        ("crops", {"size": {"shortest_edge": 28}}, "28 x 28"),
        ("crops", {"size": 56}, "28 x 28"),
        ("crops", {"pan_and_scan_max_num_crops": 0}, "pan_and_scan_max_num_crops"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be_used(kind, settings, words):
    with pytest.raises(CheckpointError) as caught:
        READERS[kind](settings)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_that_cannot_be_used():
    with pytest.raises(MediaError, match=r"1005 x 5.*200 times"):
        Patches.from_dict({})([picture(1005, 5)])
    with pytest.raises(MediaError, match=r"50 x 56.*multiples of 28"):
        Patches.from_dict({"do_resize": False})([picture(50, 56)])
    with pytest.raises(MediaError, match=r"30 x 28.*28 x 28"):
        Crops.from_dict({"do_resize": False}, 28)([picture(30, 28)])
