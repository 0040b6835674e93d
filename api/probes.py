"""The probes as scikit-learn classifiers, one for every entry of probe/table.py.

Each takes rows `X` (n, width) and labels `y` (n,) of any kind, tries its whole path of
hyper-parameters on inner folds of the rows and averages the good ones, so that nothing is left to
search. `fit` takes `groups` (n,), which stay together in the inner folds. Embeddings may be as they
come: every probe standardises its columns.

>>> from sklearn.model_selection import cross_val_score
>>> rows, x = task.rows(), task.embeddings("hog")
>>> known = (rows.label.notna() & (rows.status == "ok")).to_numpy()
>>> cross_val_score(ap.probes.Ridge(), x[known], rows.label[known], cv=3).round(1)
array([0.9, 0.9, 0.8])

`dir(ap.probes)` lists them:

>>> dir(ap.probes)
['KNN', 'LDA', 'LightGBM', 'Logistic', 'Ridge', 'SVM', 'ZeroShot']
"""

from typing import TYPE_CHECKING, Any

from archiveprobe.probe.table import PROBES

if TYPE_CHECKING:
    from archiveprobe.probe.knn import KNN
    from archiveprobe.probe.lda import LDA
    from archiveprobe.probe.linear import Logistic, Ridge
    from archiveprobe.probe.svm import SVM
    from archiveprobe.probe.trees import LightGBM
    from archiveprobe.probe.zeroshot import ZeroShot

    __all__ = ["KNN", "LDA", "SVM", "LightGBM", "Logistic", "Ridge", "ZeroShot"]

_BY_CLASS = {entry.place.partition(":")[2]: entry for entry in PROBES.values()}

if not TYPE_CHECKING:  # Else every name would have the type Any.

    def __getattr__(name: str) -> Any:
        if name not in _BY_CLASS:
            raise AttributeError(f"no probe {name!r}: there are {', '.join(sorted(_BY_CLASS))}")
        return _BY_CLASS[name].kind()


def __dir__() -> list[str]:
    return sorted(_BY_CLASS)
