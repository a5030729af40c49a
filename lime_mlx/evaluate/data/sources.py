"""Where the files of the benchmarks are published, and their sha256."""

from dataclasses import dataclass, field
from typing import NamedTuple

from lime_mlx.evaluate.data.layout import DASH_B, HALLUSION_BENCH, NATURALBENCH, TAGGER


class File(NamedTuple):
    """A published file.

    path: in the folder of data. host: the field of `Sources` with the address of the server. address: of the file on
    that server. size: in bytes.
    """

    path: str
    host: str
    address: str
    size: int
    sha256: str


def _github(task: str, home: str, table: str) -> tuple[File, ...]:
    """Files of a commit, from a table of path, size and sha256. The path is also that in the folder `task`."""
    rows = [line.split() for line in table.strip().splitlines()]
    return tuple(File(f"{task}/{path}", "github", f"{home}/{path}", int(size), sha256) for path, size, sha256 in rows)


_POPE = {
    "coco": _github(
        "pope",
        "AoiDragon/POPE/08d957b917e5a378a2f99d35b6293c536a66298b/output",
        """
coco/coco_pope_random.json 368166 ac25245170b975a5bdf9080b23fd431dfe6be458bc038259c1f4f09a6bef7994
coco/coco_pope_popular.json 370190 72c1a8ad45d0c13514f5f22598261df41d3b533854d29682e924db50ed8aa753
coco/coco_pope_adversarial.json 370401 420b3407db1fa9f1187a805dca41cb7b97fd91504e6c2179706188c107fb8ef8
""",
    ),
    "aokvqa": _github(
        "pope",
        "DAMO-NLP-SG/VCD/d6568ff81b8fd306a49e630df44f2db5c2300191/experiments/data/POPE",
        """
aokvqa/aokvqa_pope_random.json 366825 900c244605e8d43626b9579a110e3631e534cddc2aff27fe91e3f080e15d4446
aokvqa/aokvqa_pope_popular.json 363595 792d586a875c197362256b25e9252cc97df6fa1dca5aca72a53eba560414d6b7
aokvqa/aokvqa_pope_adversarial.json 365037 87f9acb460fcb690f9120c6d69eb05cfedadab5af5eb385b5201fd48bfc6670c
""",
    ),
    "gqa": _github(
        "pope",
        "DAMO-NLP-SG/VCD/d6568ff81b8fd306a49e630df44f2db5c2300191/experiments/data/POPE",
        """
gqa/gqa_pope_random.json 312270 1c1117ce33df2eae0d7b04827896caff1f79dac7b99b9e1b0c87a415066cff98
gqa/gqa_pope_popular.json 309332 e48e138bd61dd3bc4ec35cc8d4357b4dbfc68f0e704283a92217325585a17653
gqa/gqa_pope_adversarial.json 310784 64a3bdeb8d24c02d175eafa5e1b24bc7fd611efa95bb87a031c880e548aef094
""",
    ),
    "repope": _github(
        "pope/repope",
        "YanNeu/RePOPE/bcf22e5690d587cce34e1728af3efdcfaf747d29/annotations",
        """
coco_repope_random.json 340368 f464fcaf60b24ce2f280cf33f122e000dbdd35c8e88f77c4141c9c2cba864611
coco_repope_popular.json 333773 57832b055bae5fd6176278a4f104c98ddd84811f7d26dfcb93d481f6c9da09a5
coco_repope_adversarial.json 328764 8c346dbb060bf422ff92e769fa68e5ab3e8a777cb28a26e973387441e05c9ccf
""",
    ),
}
_CHAIR = _github(
    "chair",
    "LisaAnne/Hallucination/6e4d33c4bedf6dfcd24c61bf527f40714717be47/data",
    """
synonyms.txt 3577 b685537b36fe21b791c87151b96a991ceb582edff19f3da204dcc7a7905502f2
""",
)
_AMBER = _github(
    "amber",
    "junyangwang0410/AMBER/534babf6bbfcce2e735c26289dedfb21cef3c939/data",
    """
annotations.json 1813301 db22a436c4836fbb295e60b4e80d519573077579fb7032f01b193c1bd022b797
relation.json 12699 c4c1491e9bbc3209abc1888c12a1bf8413bdbab8a0d8be04b990a2e7680cf23e
safe_words.txt 57 f92cf1123f4578a2630832fac3e6ac4de36212ea55859d3bed4fd233723f4043
metrics.txt 899 2fbe2ee584d10e7ce0a568a4902d3d2296727d45f761bf091dd35c4e4b5bc6ac
query/query_all.json 1844750 127680ae61f7d4a92d2f7f07a8deaec07f0689b194d2c7c0f41ead7bd2c5bcf5
query/query_generative.json 106220 b7e4c36596126ee36d2c3922638b7fa98743c26efda78fea2315f4425258d087
query/query_discriminative.json 1738529 1502887ac020f4bb7ea564af4e37bddcb030d61b78490d00f9da492a2307abb8
query/query_discriminative-existence.json 583367 657cce3b3ccd02303998d7d27d1ce06bd210a7a55aa6c888b1b86d5a9dfd9849
query/query_discriminative-attribute.json 922022 35c0fe71290789c5eb198e9a3f5732533bcb35f1d963b57539aab5d1b41dd827
query/query_discriminative-relation.json 233144 36e08860653a1562acb657c250604c3d4e26f8a5f99a376fd53c67f9242be20f
""",
)
_OTHERS = {
    DASH_B: _github(
        DASH_B,
        "YanNeu/DASH-B/1538d01da15ef152dca8a8405da3f9444e26661d/images",
        """
dash_benchmark_neg.json 42487 29d9afa611083f3becdc64e4c30a1783a6c8be9bf6d335a12b124c50ad2876ed
dash_benchmark_pos.json 32227 fe261c2b9463e27034aea34368330ae4645cfd3bc0feca907240eb5160517829
""",
    ),
    HALLUSION_BENCH: _github(
        HALLUSION_BENCH,
        "tianyi-lab/HallusionBench/744007c232c292942c7f80eb61edb2465482da31",
        """
HallusionBench.json 431987 ca6e0fb677dd56e5fb0e2700d06c58d01f8a6ae66e0f1773b2ac48c0a095d051
""",
    ),
    NATURALBENCH: _github(
        NATURALBENCH,
        "Baiqi-Li/NaturalBench/99676059da42c0094df345bb3333b1140a18483b/dataset_split_for_finetuning",
        """
test_set.json 657950 f4ca78dc9f75cddd5f076b15213e20eacf2c6574a7cefa9a30a8f17b829b3633
""",
    ),
}
# Size and digest are those of NLTK's own index of packages.
_TAGGER = File(
    TAGGER,
    "github",
    "nltk/nltk_data/550b6625bcef1f2abff2ff770a5a0d272c9c6b2a/packages/taggers/averaged_perceptron_tagger_eng.zip",
    1539115,
    "6025f530624335c67d6547d44757b357b4e79bae030a0383e9887a92c1718f0b",
)
# The digest is the one in the catalogue of TensorFlow Datasets.
_ANNOTATIONS = File(
    "chair/annotations_trainval2014.zip",
    "coco",
    "annotations/annotations_trainval2014.zip",
    252872794,
    "031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
)


@dataclass(frozen=True)
class Sources:
    """The addresses of the servers, the files of POPE by set, those of CHAIR and AMBER, and AMBER's number of pictures.

    others: the files of the tasks whose pictures are not fetched. tagger: the weights that CHAIR and AMBER share; a
    user's own folder need not have them.
    coco: the S3 path, because the certificate of images.cocodataset.org is that of S3.
    """

    github: str = "https://raw.githubusercontent.com"
    coco: str = "https://s3.amazonaws.com/images.cocodataset.org"
    pope: dict[str, tuple[File, ...]] = field(default_factory=lambda: _POPE)
    chair: tuple[File, ...] = _CHAIR
    annotations: File = _ANNOTATIONS
    amber: tuple[File, ...] = _AMBER
    amber_pictures: int = 1004
    tagger: tuple[File, ...] = (_TAGGER,)
    others: dict[str, tuple[File, ...]] = field(default_factory=lambda: _OTHERS)


LICENCES = {
    "pope:set=coco": "MIT; labels and pictures of COCO",
    "pope:set=aokvqa": "Apache-2.0 (VCD); pictures of COCO",
    "pope:set=gqa": "Apache-2.0 (VCD); pictures of GQA",
    "pope:set=repope": "none is stated; labels after COCO, pictures of COCO",
    "chair": "BSD-2-Clause; annotations of COCO, CC BY 4.0, and its pictures; tagger MIT",
    "amber": "Apache-2.0; tagger MIT",
    "mme": "given out by its authors",
    "audio": "none is stated",
    DASH_B: "none is stated",
    HALLUSION_BENCH: "BSD-3-Clause",
    NATURALBENCH: "none is stated",
}
# Where the files are that are not fetched, and why they are not.
GQA = (
    "They are in the archive of https://cs.stanford.edu/people/dorarad/gqa/download.html (20 GB): unpack it, then run "
    "lime-mlx data get pope --set gqa --from FOLDER."
)
AMBER = (
    "They are behind the link in https://github.com/junyangwang0410/AMBER#image-download, on Google Drive: unpack "
    "them, then run lime-mlx data get amber --from FOLDER."
)
MME = (
    "MME is not fetched: see https://github.com/BradyFU/Awesome-Multimodal-Large-Language-Models/tree/Evaluation for "
    "how its authors give it out, unpack it, then run lime-mlx data get mme --from FOLDER."
)
AUDIO = (
    "The audio questions state no licence and the sounds (AudioCaps, test) are of YouTube, so neither is fetched: see "
    "https://github.com/kuan2jiu99/audio-hallucination, put the TSV files and the sounds (<audio_index>.wav) into one "
    "folder, then run lime-mlx data get audio --from FOLDER."
)
# By task: where the pictures are whose question files are fetched.
PICTURES = {
    DASH_B: (
        "They are the archives neg.zip and pos.zip of https://github.com/YanNeu/DASH-B#download: unpack them, then run "
        "lime-mlx data get dash-b --from FOLDER."
    ),
    HALLUSION_BENCH: (
        "They are the archive hallusion_bench.zip behind the link in "
        "https://github.com/tianyi-lab/HallusionBench#dataset-download, on Google Drive: unpack it, then run "
        "lime-mlx data get hallusion-bench --from FOLDER."
    ),
    NATURALBENCH: (
        "They are in the archive of https://huggingface.co/datasets/BaiqiL/NaturalBench for its split for finetuning: "
        "unpack it, then run lime-mlx data get naturalbench --from FOLDER."
    ),
}
