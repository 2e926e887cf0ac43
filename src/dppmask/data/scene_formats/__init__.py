"""The layouts in which Scenes can be written to disk, one a file."""

from dppmask.data.scene_formats.base import SceneFormat
from dppmask.data.scene_formats.clevr import write_clevr
from dppmask.data.scene_formats.coco import write_coco
from dppmask.data.scene_formats.image_folder import write_image_folder

FORMATS = {
    "imagefolder": SceneFormat(write_image_folder, tasks=("single",)),
    "clevr": SceneFormat(write_clevr, tasks=("multi",)),
    "coco": SceneFormat(write_coco, tasks=("single", "multi")),
}
