"""The written files of the demo archive."""

from __future__ import annotations

TASK_TOML = """\
# The built-in archive. Every command of archiveprobe takes this file as its first argument.
# Paths are relative to the folder this file lies in.
name = "demo"
labels = ["not_destruction", "destruction"]
positive = "destruction"               # the label that thresholds and precision speak of
# corrections = "corrections.csv"      # id,label: laid over the table, which stays as it is

[images]
root = "images"                        # all pictures lie below this folder
table = "labels.csv"                   # without it: one folder per label
id = "image"                           # column: path below root
label = "label"                        # column: empty in rows to predict
split = "split"                        # column: train, validation or test
text = "caption"                       # column: what was written beside the picture

[folds]
count = 5                              # train and validation rows are cut into five parts,
repeats = 5                            # five times over
seed = 0
group = "near-duplicates"              # re-posts of one picture stay in one fold

[embed]
backbones = ["hog"]                    # needs no weights; `archiveprobe list backbones` has more
views = "crops6"                       # three crops and their mirror images
layers = "pooled"

[prompts]                              # for probes that compare pictures with words: a CLIP
                                       # among the backbones embeds these, and the captions
destruction = ["a photo of a destroyed building", "a photo of rubble in a street"]
not_destruction = ["a photo of an intact street", "a photo of people", "a photo of a market"]

# A backbone of one's own, with weights from a file:
# [backbone.mine]
# library = "timm"                     # or "open_clip"
# name = "mobilenetv2_100"
# weights = "weights/mine.safetensors" # or "pretrained", or "random"
# arguments = { pad_type = "same" }    # for the library's own constructor
# Without this line the library's own preprocessing is taken, and embed says which that is:
# preprocess = { size = 224, resize = 256, mean = [0.5, 0.5, 0.5], std = [0.5, 0.5, 0.5] }

[submission]
template = "sample_submission.csv"     # gives the columns, the ids and their order
unreadable = "not_destruction"         # the answer for a picture that cannot be read
"""

_README = """\
# A demo archive

{count} drawn pictures of streets, intact and destroyed, made from seed {seed}. No photograph and \
no real place is shown. The archive is as untidy as real ones are, so that there is something to \
find.

| file | what it is | for example |
|---|---|---|
| `task.toml` | says what is to be learnt from what | `positive = "destruction"` |
| `labels.csv` | one row per picture; test rows have an empty label | `{known}` |
| `test_labels.csv` | the same columns, with the labels of the test rows | `{hidden}` |
| `sample_submission.csv` | the form of an answer: every test row, the commoner label | `{answer}` |
| `images/` | the pictures, with sub-folders and Arabic names | `images/{example}` |

Try: `archiveprobe embed task.toml`, then `probe task.toml`, then `report task.toml`.

What is untidy on purpose:

- About 2 % of the labels are wrong. Which ones is written nowhere; `archiveprobe audit` looks \
for them.
- About 10 % are copies of other pictures: recompressed, cropped, with a border, or the same \
bytes under another name. They carry the label of the original, and some lie in another split.
- Some pictures have stickers or captions on them, some are screenshots of a telephone.
- Some JPEG files are stored turned, with the EXIF tag that turns them back. Some PNG files have \
transparent parts, one is grey with 16 bits, one file is an animated GIF.
- Two rows cannot be read: a JPEG that was cut off, and an error page saved as `.jpg`.
- Heaps of goods, building sites and dusty streets are not destruction; slight damage in a bright \
street and ruins far away are.
"""


def readme(**facts: object) -> str:
    """Return the README; facts: count, seed and one example row of each file."""
    return _README.format(**facts)
