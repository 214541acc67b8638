//! The left matrix of a product, where it lies: rows in memory, or pixels of images.

use crate::conv::Shape;

/// Where the rows of a tile begin. A convolution also says which pixel of the input that would be, which may lie outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<const R: usize> {
    base: [*const f32; R],
    y: [i32; R],
    x: [i32; R],
    /// No row reads outside.
    inside: bool,
}

/// A pixel of the output.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pixel {
    image: usize,
    y: usize,
    x: usize,
}

/// The left matrix, read where it lies: for each row and position, a pointer to numbers that lie one behind another. Either rows in memory, with
/// one position, or pixels of images through the places of a kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows {
    pub data: *const f32,
    /// Rows in memory, `steps[2]` apart: nothing of the rest matters.
    pub plain: bool,
    /// What stands for places outside.
    pub zeros: *const f32,
    /// Rows and columns of the output.
    pub output: [usize; 2],
    /// Rows and columns of the input.
    pub input: [i32; 2],
    /// From one image, row and pixel of the input to the next.
    pub steps: [usize; 3],
    pub stride: [i32; 2],
    pub border: [i32; 2],
    pub dilation: [i32; 2],
    /// Positions of a row of the kernel.
    pub across: usize,
    /// From the first place to the furthest.
    pub reach: [i32; 2],
}

// SAFETY: it is read only, and borrowed by whoever makes one.
unsafe impl Send for Rows {}
// SAFETY: as above.
unsafe impl Sync for Rows {}

impl Rows {
    /// Rows in memory.
    pub fn plain(data: *const f32, stride: usize) -> Rows {
        Rows {
            data,
            plain: true,
            zeros: std::ptr::null(),
            output: [1; 2],
            input: [1; 2],
            steps: [0, 0, stride],
            stride: [1; 2],
            border: [0; 2],
            dilation: [1; 2],
            across: 1,
            reach: [0; 2],
        }
    }

    /// Pixels of images, channels last; `zeros` has as many numbers as are read of a pixel.
    pub fn images(shape: &Shape, data: *const f32, zeros: *const f32) -> Rows {
        Rows {
            plain: false,
            data,
            zeros,
            output: shape.output(),
            input: [shape.height as i32, shape.width as i32],
            steps: [
                shape.height * shape.width * shape.channels,
                shape.width * shape.channels,
                shape.channels,
            ],
            stride: shape.stride.map(|x| x as i32),
            border: [shape.padding[0][0] as i32, shape.padding[1][0] as i32],
            dilation: shape.dilation.map(|x| x as i32),
            across: shape.kernel[1],
            reach: std::array::from_fn(|i| ((shape.kernel[i] - 1) * shape.dilation[i]) as i32),
        }
    }

    /// The pixel of the output that a row is; of a plain matrix, the row itself.
    #[inline(always)]
    pub fn pixel(&self, row: usize) -> Pixel {
        if self.plain {
            return Pixel { image: 0, y: 0, x: row };
        }
        let [height, width] = self.output;
        let line = row / width;
        Pixel {
            image: line / height,
            y: line % height,
            x: row % width,
        }
    }

    /// Where `R` rows from a pixel on begin; the pixel is then the one behind them.
    #[inline(always)]
    pub fn place<const R: usize>(&self, pixel: &mut Pixel) -> Place<R> {
        let mut place = Place {
            base: [self.data; R],
            y: [0; R],
            x: [0; R],
            inside: true,
        };
        if self.plain {
            place.base = std::array::from_fn(|r| self.data.wrapping_add((pixel.x + r) * self.steps[2]));
            pixel.x += R;
            return place;
        }
        let [height, width] = self.output;
        let Pixel { image, y, x } = pixel;
        for r in 0..R {
            place.y[r] = *y as i32 * self.stride[0] - self.border[0];
            place.x[r] = *x as i32 * self.stride[1] - self.border[1];
            let at = (*image * self.steps[0]) as isize
                + place.y[r] as isize * self.steps[1] as isize
                + place.x[r] as isize * self.steps[2] as isize;
            place.base[r] = self.data.wrapping_offset(at);
            place.inside &= place.y[r] >= 0
                && place.x[r] >= 0
                && place.y[r] + self.reach[0] < self.input[0]
                && place.x[r] + self.reach[1] < self.input[1];
            *x += 1;
            if *x == width {
                (*x, *y) = (0, *y + 1);
                if *y == height {
                    (*y, *image) = (0, *image + 1);
                }
            }
        }
        place
    }

    /// Row and column of the kernel of a position.
    #[inline(always)]
    pub fn position(&self, position: usize) -> [usize; 2] {
        match self.plain {
            true => [0; 2],
            false => [position / self.across, position % self.across],
        }
    }

    /// The position behind one.
    #[inline(always)]
    pub fn next(&self, [down, across]: [usize; 2]) -> [usize; 2] {
        match across + 1 == self.across {
            true => [down + 1, 0],
            false => [down, across + 1],
        }
    }

    /// Pointers of a position.
    #[inline(always)]
    pub fn at<const R: usize>(&self, place: &Place<R>, [down, across]: [usize; 2]) -> [*const f32; R] {
        if self.plain {
            return place.base;
        }
        let (down, across) = (down as i32 * self.dilation[0], across as i32 * self.dilation[1]);
        let offset = down as isize * self.steps[1] as isize + across as isize * self.steps[2] as isize;
        if place.inside {
            return std::array::from_fn(|r| place.base[r].wrapping_offset(offset));
        }
        std::array::from_fn(|r| {
            let (y, x) = (place.y[r] + down, place.x[r] + across);
            match (y as u32) < self.input[0] as u32 && (x as u32) < self.input[1] as u32 {
                true => place.base[r].wrapping_offset(offset),
                false => self.zeros,
            }
        })
    }
}
