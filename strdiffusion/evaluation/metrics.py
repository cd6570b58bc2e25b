"""Metrics of an image, on values in [0,1] (data range 1), and of its labels: of the whole image or of the hole alone."""

import numpy as np

SSIM_WINDOW = 11  # of a Gaussian with sigma 1.5


def inside(image: np.ndarray, border: int) -> np.ndarray:
    """The image (H,W[,C]) without so many pixels on each side, as IR-SDE's program judges it (border 4)."""
    return image[border : image.shape[0] - border, border : image.shape[1] - border]


def psnr(image: np.ndarray, truth: np.ndarray, hole: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of image (H,W,C) against truth; over the pixels of hole (H,W) bool if given.

    Infinite if they are equal, nan if the hole is empty.
    """
    error = np.square(_difference(image, truth, hole))
    if error.size == 0:
        return float("nan")
    mse = error.mean()
    return float("inf") if mse == 0 else float(-10 * np.log10(mse))


def l1(image: np.ndarray, truth: np.ndarray, hole: np.ndarray | None = None) -> float:
    """Mean absolute difference, in [0,1], of image (H,W,C) and truth; over the pixels of hole (H,W) bool if given.

    nan if the hole is empty.
    """
    error = np.abs(_difference(image, truth, hole))
    return float(error.mean()) if error.size else float("nan")


def ssim(image: np.ndarray, truth: np.ndarray, hole: np.ndarray | None = None) -> float:
    """Structural similarity of image (H,W,C) and truth (Gaussian window, sigma 1.5, population covariance).

    With hole (H,W) bool, the mean of the similarity map over the hole's pixels. nan for images below 11 pixels a side.
    """
    if min(image.shape[:2]) < SSIM_WINDOW or (hole is not None and not hole.any()):
        return float("nan")
    from skimage.metrics import structural_similarity

    mean, similarity = structural_similarity(
        truth.astype(np.float64),
        image.astype(np.float64),
        data_range=1.0,
        channel_axis=-1,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    return float(mean) if hole is None else float(similarity[hole].mean())


def agreement(labels: np.ndarray, truth: np.ndarray, hole: np.ndarray | None = None) -> float:
    """The share of pixels whose class in labels (H,W) is that of truth, in [0,1]; over the pixels of hole (H,W) bool if given.

    nan if the hole is empty.
    """
    same = labels == truth if hole is None else (labels == truth)[hole]
    return float(same.mean()) if same.size else float("nan")


def mean_iou(labels: np.ndarray, truth: np.ndarray, hole: np.ndarray | None = None) -> float:
    """The mean over classes of intersection / union of labels (H,W) and truth; over the pixels of hole (H,W) bool if given.

    Only classes that either of the two has count. nan if the hole is empty.
    """
    a, b = (labels.ravel(), truth.ravel()) if hole is None else (labels[hole], truth[hole])
    shares = [np.count_nonzero((a == k) & (b == k)) / np.count_nonzero((a == k) | (b == k)) for k in np.union1d(a, b)]
    return float(np.mean(shares)) if shares else float("nan")


def sharpness(image: np.ndarray, truth: np.ndarray, hole: np.ndarray | None = None) -> float:
    """The mean length of the gradient of image (H,W,C), relative to that of truth; over the pixels of hole (H,W) bool if given.

    1 is as sharp as the truth, 0 flat. Gradients are central differences of the mean over channels. nan for an empty hole or a flat truth.
    """
    of_image, of_truth = (_steepness(values, hole) for values in (image, truth))
    return of_image / of_truth if of_truth > 0 else float("nan")


def _steepness(image: np.ndarray, hole: np.ndarray | None) -> float:
    """The mean length of the gradient of an image (H,W,C), in levels per pixel; nan for an empty hole."""
    length = np.hypot(*np.gradient(image.astype(np.float64).mean(axis=2)))
    length = length if hole is None else length[hole]
    return float(length.mean()) if length.size else float("nan")


def _difference(image: np.ndarray, truth: np.ndarray, hole: np.ndarray | None) -> np.ndarray:
    """image - truth in float64, (H,W,C), or (pixels,C) of the hole."""
    difference = image.astype(np.float64) - truth.astype(np.float64)
    return difference if hole is None else difference[hole]
