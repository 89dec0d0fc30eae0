"""Operations on batches of uint8 images, each image with a parameter of its own; they follow Pillow.

`equalize` and `autocontrast` are torchvision's. Its others want one parameter for all images, and `affine`, `rotate`
and `adjust_sharpness` copy small tensors to the device, which makes the host wait.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as kernels

BLUR_RADIUS = 6  # pixels: three standard deviations of the widest blur
FILL = 128  # grey level of what a rotation, shear or translation moves in

Operation = Callable[[Tensor, Tensor], Tensor]  # uint8 (n, channels, H, W) and a parameter of each image, (n,)


def rotate(images: Tensor, degrees: Tensor) -> Tensor:
    """Turned counter-clockwise around the centre; the nearest pixel, grey where there is none."""
    height, width = images.shape[-2:]
    angle = torch.deg2rad(degrees)[:, None, None]
    down, right = pixel_centres(height, images)[:, None] - height / 2, pixel_centres(width, images) - width / 2
    rows = angle.sin() * right + angle.cos() * down + height / 2
    cols = angle.cos() * right - angle.sin() * down + width / 2
    return _nearest(images, rows, cols)


def translate_x(images: Tensor, share: Tensor) -> Tensor:
    """Moved left by a share of the width (right if negative), to the nearest pixel; grey moves in."""
    height, width = images.shape[-2:]
    cols = pixel_centres(width, images) + width * share[:, None, None]
    return _nearest(images, pixel_centres(height, images)[:, None], cols)


def translate_y(images: Tensor, share: Tensor) -> Tensor:
    """Moved up by a share of the height (down if negative), to the nearest pixel; grey moves in."""
    height, width = images.shape[-2:]
    rows = pixel_centres(height, images)[:, None] + height * share[:, None, None]
    return _nearest(images, rows, pixel_centres(width, images))


def shear_x(images: Tensor, slope: Tensor) -> Tensor:
    """Rows moved left by `slope` times their distance from the top edge, as `shear_y` moves columns."""
    return shear_y(images.mT, slope).mT


def shear_y(images: Tensor, slope: Tensor) -> Tensor:
    """Columns moved up by `slope` times their distance from the left edge; bicubic as Pillow's, grey moves in.

    torchvision has no bicubic `affine` for tensors, and its bilinear one mixes the grey into the border.
    """
    height, width = images.shape[-2:]
    rows = pixel_centres(height, images)[:, None] + slope[:, None, None] * pixel_centres(width, images)
    outside = (rows < 0) | (rows >= height)
    first = (rows - 0.5).floor()
    t = (rows - 0.5 - first)[:, None]
    before, start, end, after = (
        images.gather(2, _clamped(first + step, height)[:, None].expand_as(images)).float() for step in (-1, 0, 1, 2)
    )
    return _filled(_cubic(before, start, end, after, t).clamp_(0, 255).to(torch.uint8), outside)


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Between black (0) and the image (1), or beyond."""
    return _brightened(images.float(), factor).to(torch.uint8)


def color(images: Tensor, factor: Tensor) -> Tensor:
    """Between the grey image (0) and the image (1), or beyond; a grey image stays as it is."""
    return _coloured(images.float(), factor).to(torch.uint8)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Between the mean grey level of the image (0) and the image (1), or beyond."""
    return _contrasted(images.float(), factor).to(torch.uint8)


def sharpness(images: Tensor, factor: Tensor) -> Tensor:
    """Between the smoothed image (0) and the image (1), or beyond; the outermost pixels stay as they are.

    Smoothed: the mean of 3 x 3 pixels in which the middle one counts five times.
    """
    if min(images.shape[-2:]) < 3:
        return images
    values, result = images.float(), images.clone()
    columns = values[..., :-2, :] + values[..., 1:-1, :] + values[..., 2:, :]
    squares = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:]
    inner = values[..., 1:-1, 1:-1]
    smooth = squares.add_(inner, alpha=4).div_(13).add_(0.5).floor_()
    result[..., 1:-1, 1:-1] = _blend(smooth, inner, factor).to(torch.uint8)
    return result


def posterize(images: Tensor, bits: Tensor) -> Tensor:
    """Keeps the highest bits."""
    kept = (256 - torch.exp2(8 - bits)).to(torch.uint8)
    return images.bitwise_and(_of_images(kept))


def solarize(images: Tensor, threshold: Tensor) -> Tensor:
    """Inverts the values from a threshold on."""
    bright = (images.float() >= _of_images(threshold)).to(torch.uint8)
    return images.bitwise_xor(bright.mul_(255))


def autocontrast(images: Tensor, _: Tensor) -> Tensor:
    """Each channel stretched to 0..255."""
    result: Tensor = kernels.autocontrast(images)
    return result


def equalize(images: Tensor, _: Tensor) -> Tensor:
    """Each channel's histogram made flat."""
    result: Tensor = kernels.equalize(images)
    return result


def invert(images: Tensor, _: Tensor) -> Tensor:
    """255 minus each value."""
    return images.bitwise_not()


def hue(images: Tensor, turn: Tensor) -> Tensor:
    """Hues turned by a share of the circle; grey images stay as they are."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.float().unbind(1)
    high = images.amax(1).float()
    span = high - images.amin(1).float()
    width = span.clamp_min(1)  # whole grey levels: 0 or at least 1
    sixth = torch.where(high == green, 2 + (blue - red) / width, 4 + (red - green) / width)
    sixth = torch.where(high == red, (green - blue) / width, sixth) + 6 * turn[:, None, None]
    place = (torch.arange(5, 0, -2, device=images.device)[:, None, None] + sixth[:, None]) % 6
    return (high[:, None] - span[:, None] * torch.minimum(place, 4 - place).clamp(0, 1)).round().to(torch.uint8)


def blur(images: Tensor, std: Tensor) -> Tensor:
    """Gaussian blur with a standard deviation in pixels, cut at `BLUR_RADIUS`; the border is continued."""
    offset = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, device=images.device)
    weight = F.softmax(-0.5 * (offset / std[:, None]).square(), dim=1)
    values = F.pad(images.float(), (BLUR_RADIUS,) * 4, mode="replicate")
    for axis in (2, 3):
        shifted = [values.narrow(axis, k, images.shape[axis]) * _of_images(weight[:, k]) for k in range(len(offset))]
        values = torch.stack(shifted).sum(0)
    return values.round().to(torch.uint8)


# An operation's code in a plan is its place in this table, counted from 1; 0 leaves an image as it is.
OPERATIONS: dict[str, Operation] = {
    function.__name__: function
    for function in (
        *(rotate, translate_x, translate_y, shear_y, brightness, color, contrast, sharpness),
        *(posterize, solarize, autocontrast, equalize, invert, shear_x, hue, blur),
    )
}
CODES = {name: code for code, name in enumerate(OPERATIONS, 1)}


def _brightened(values: Tensor, factor: Tensor) -> Tensor:
    """`brightness` in place, of whole grey levels as floats; so are the next two."""
    return _whole(values.mul_(_of_images(factor)))


def _coloured(values: Tensor, factor: Tensor) -> Tensor:
    return values if values.shape[1] == 1 else _blend(_grey(values), values, factor)


def _contrasted(values: Tensor, factor: Tensor) -> Tensor:
    mean = _grey(values).mean((1, 2, 3), keepdim=True).add_(0.5).floor_()
    return _blend(mean, values, factor)


BLENDS = {CODES["brightness"]: _brightened, CODES["color"]: _coloured, CODES["contrast"]: _contrasted}


def _of_images(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def pixel_centres(size: int, images: Tensor) -> Tensor:
    """Pixel centres, as Pillow counts: 0.5, 1.5, ..."""
    return torch.arange(size, device=images.device) + 0.5


def _clamped(position: Tensor, size: int) -> Tensor:
    return position.clamp(0, size - 1).long()


def _nearest(images: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    """Pixels at the given positions, which together have shape (n, H, W); grey outside of the image."""
    height, width = images.shape[-2:]
    rows, cols = rows.floor(), cols.floor()
    outside = (rows < 0) | (rows >= height) | (cols < 0) | (cols >= width)
    source = (_clamped(rows, height) * width + _clamped(cols, width)).flatten(1)[:, None]
    found = images.flatten(2).gather(2, source.expand(-1, images.shape[1], -1)).view_as(images)
    return _filled(found, outside)


def _filled(images: Tensor, outside: Tensor) -> Tensor:
    """Grey where `outside`, shape (n, H, W). Arithmetic, as a processor has no fast way to fill by a mask."""
    return images * ~outside[:, None] + FILL * outside[:, None].to(torch.uint8)


def _cubic(before: Tensor, start: Tensor, end: Tensor, after: Tensor, t: Tensor) -> Tensor:
    """Cubic convolution between `start` (t = 0) and `end` (t = 1) with a = -1, as Pillow's transforms have it."""
    quadratic = 2 * (before - start) + end - after
    cubic = start - before + after - end
    return start + t * (end - before + t * (quadratic + t * cubic))


def _grey(values: Tensor) -> Tensor:
    """Luma (ITU-R 601-2) in whole grey levels, shape (n, 1, H, W), with Pillow's rounding; floats hold it exactly."""
    if values.shape[1] == 1:
        return values
    red, green, blue = values.unbind(1)
    sum_ = (19595 * red).add_(green, alpha=38470).add_(blue, alpha=7471).add_(32768)
    return sum_.mul_(2**-16).floor_()[:, None]


def _blend(neutral: Tensor, values: Tensor, factor: Tensor) -> Tensor:
    """In place: between what is neutral (0) and the values (1), or beyond."""
    return _whole(values.sub_(neutral).mul_(_of_images(factor)).add_(neutral))


def _whole(values: Tensor) -> Tensor:
    """In place: grey levels as uint8 would hold them."""
    return values.clamp_(0, 255).floor_()
