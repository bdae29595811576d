"use strict";
/* An image of any size as the run fits it: gray by ITU-R 601, bilinear with the filter's support scaled to the reduction,
 * in whole numbers as Pillow's Resample.c has it, so that the same pixels give the same input. */

const PRECISION = 22;

function coefficients(inSize, in0, in1, outSize) {
  const scale = (in1 - in0) / outSize, filterScale = Math.max(scale, 1), support = filterScale;
  return Array.from({ length: outSize }, (_, at) => {
    const centre = in0 + (at + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const last = Math.min(inSize, Math.trunc(centre + support + 0.5));
    const weights = [];
    for (let x = first; x < last; x++) weights.push(Math.max(0, 1 - Math.abs((x - centre + 0.5) / filterScale)));
    const total = weights.reduce((sum, one) => sum + one, 0);
    return { first, weights: weights.map((one) => Math.trunc(0.5 + (total ? one / total : one) * (1 << PRECISION))) };
  });
}

/* One plane, row by row: Uint8Array [height · width] → [outHeight · outWidth], from a box of it. */
function resizePlane(plane, width, height, box, outWidth, outHeight) {
  const [left, top, right, bottom] = box;
  const half = 1 << (PRECISION - 1);
  let current = plane, currentWidth = width;
  if (outWidth !== width || left !== 0 || right !== width) {
    const across = coefficients(width, left, right, outWidth);
    current = new Uint8Array(height * outWidth);
    for (let y = 0; y < height; y++) {
      for (let x = 0; x < outWidth; x++) {
        const { first, weights } = across[x];
        let sum = half;
        for (let k = 0; k < weights.length; k++) sum += plane[y * width + first + k] * weights[k];
        current[y * outWidth + x] = Math.min(255, Math.max(0, Math.floor(sum / (1 << PRECISION))));
      }
    }
    currentWidth = outWidth;
  }
  if (outHeight === height && top === 0 && bottom === height) return current;
  const down = coefficients(height, top, bottom, outHeight);
  const result = new Uint8Array(outHeight * outWidth);
  for (let y = 0; y < outHeight; y++) {
    const { first, weights } = down[y];
    for (let x = 0; x < outWidth; x++) {
      let sum = half;
      for (let k = 0; k < weights.length; k++) sum += current[(first + k) * currentWidth + x] * weights[k];
      result[y * outWidth + x] = Math.min(255, Math.max(0, Math.floor(sum / (1 << PRECISION))));
    }
  }
  return result;
}

/* RGBA pixels of any size → Uint8Array [channels · height · width] as the run's own images are. */
function fitImage(rgba, width, height, form) {
  const wide = form.image_width, high = form.image_size, channels = form.channels;
  const planes = Array.from({ length: channels }, () => new Uint8Array(width * height));
  for (let at = 0; at < width * height; at++) {
    const [red, green, blue] = [rgba[4 * at], rgba[4 * at + 1], rgba[4 * at + 2]];
    if (channels === 1) planes[0][at] = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16;
    else [planes[0][at], planes[1][at], planes[2][at]] = [red, green, blue];
  }
  let box = [0, 0, width, height], shown = [wide, high];
  if (form.fit === "crop") {
    const scale = Math.max(wide / width, high / height);
    const kept = [[wide, width], [high, height]].map(([out, of]) => Math.min(of, Math.max(1, roundEven((form.crop_share * out) / scale))));
    const left = Math.floor((width - kept[0]) / 2), top = Math.floor((height - kept[1]) / 2);
    box = [left, top, left + kept[0], top + kept[1]];
  } else if (form.fit === "pad") {
    const scale = Math.min(wide / width, high / height);
    shown = [width, height].map((of) => Math.max(1, roundEven(of * scale)));
  }
  const left = Math.floor((wide - shown[0]) / 2), top = Math.floor((high - shown[1]) / 2);
  const fitted = new Uint8Array(channels * high * wide);
  planes.forEach((plane, channel) => {
    const small = resizePlane(plane, width, height, box, shown[0], shown[1]);
    for (let y = 0; y < shown[1]; y++) {
      fitted.set(small.subarray(y * shown[0], (y + 1) * shown[0]), (channel * high + top + y) * wide + left);
    }
  });
  return fitted;
}

/* As Python rounds: halves to the even neighbour. */
function roundEven(value) {
  const floor = Math.floor(value);
  if (value - floor !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
