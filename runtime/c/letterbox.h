/* ---- before the network ---- */

static inline int32_t rfe_scaled(int32_t side, int32_t numerator, int32_t denominator) {
    int64_t scaled = ((int64_t)side * numerator + denominator / 2) / denominator;
    return scaled < 1 ? 1 : (int32_t)scaled;
}

/* Source position of target i: (i + 1/2) * source / target - 1/2. */
static inline void rfe_taps(int32_t source, int32_t target, rfe_tap *taps) {
    int64_t denominator = 2 * (int64_t)target;
    for (int32_t i = 0; i < target; i++) {
        int64_t numerator = (2 * (int64_t)i + 1) * source - target;
        int64_t first = 0;
        if (numerator < 0) {
            numerator = 0;
        }
        first = numerator / denominator;
        taps[i].weight = (uint16_t)((numerator % denominator * 256 + target) / denominator);
        taps[i].first = (int32_t)(first < source - 1 ? first : source - 1);
        taps[i].second = (int32_t)(first + 1 < source - 1 ? first + 1 : source - 1);
    }
}

/* Placement and tables for frames of one size. 0, or RFE_BAD_ARGUMENT for a side below 1 or above 32767. */
static inline int32_t rfe_letterbox_init(rfe_letterbox *box, int32_t frame_width, int32_t frame_height) {
    if (frame_width < 1 || frame_height < 1 || frame_width > RFE_MAX_FRAME_SIDE || frame_height > RFE_MAX_FRAME_SIDE) {
        return RFE_BAD_ARGUMENT;
    }
    box->frame_width = frame_width;
    box->frame_height = frame_height;
    if ((int64_t)RFE_INPUT_WIDTH * frame_height <= (int64_t)RFE_INPUT_HEIGHT * frame_width) {
        box->width = RFE_INPUT_WIDTH;
        box->height = rfe_scaled(frame_height, RFE_INPUT_WIDTH, frame_width);
    } else {
        box->width = rfe_scaled(frame_width, RFE_INPUT_HEIGHT, frame_height);
        box->height = RFE_INPUT_HEIGHT;
    }
    rfe_taps(frame_width, box->width, box->columns);
    rfe_taps(frame_height, box->height, box->rows);
    for (int32_t i = 0; i < 3 * box->width; i++) {
        box->column_weights[i] = box->columns[i / 3].weight;
    }
    box->column_step = frame_width % box->width == 0 ? frame_width / box->width : 0;
    return 0;
}

/* A row of the frame or of the input, whichever is longer, with room to read and write pixels as words. */
static inline size_t rfe_row_bytes(int32_t frame_width) {
    return (size_t)(frame_width > RFE_INPUT_WIDTH ? frame_width : RFE_INPUT_WIDTH) * 3 + 4;
}

/* Bytes of working memory that rfe_letterbox_run needs. */
static inline size_t rfe_rows_bytes(int32_t frame_width) { return 3 * rfe_row_bytes(frame_width); }

/* One row of the frame as packed BGR bytes: the frame's own where they are that already, otherwise `row`. */
static inline const uint8_t *rfe_packed_row(const rfe_frame *frame, int32_t y, int32_t width, uint8_t *row) {
    const uint8_t *source = frame->pixels + frame->row_stride * y;
    if (frame->colour == RFE_BGR && frame->column_stride == 3) {
        return source;
    }
    for (int32_t x = 0; x < width; x++) {
        const uint8_t *pixel = source + frame->column_stride * x;
        row[3 * x] = frame->colour == RFE_RGB ? pixel[2] : pixel[0];
        row[3 * x + 1] = frame->colour == RFE_GREY ? pixel[0] : pixel[1];
        row[3 * x + 2] = frame->colour == RFE_BGR ? pixel[2] : pixel[0];
    }
    return row;
}

/* out = (first * (256 - weight) + second * weight + 128) / 256. `out` is other memory than both. */
static inline void rfe_blend(const uint8_t *RFE_RESTRICT first, const uint8_t *RFE_RESTRICT second, uint16_t weight,
                             int32_t bytes, uint8_t *RFE_RESTRICT out) {
    const uint16_t w2 = weight;
    const uint16_t w1 = (uint16_t)(256 - weight);
    if (weight == 128) { /* the same value in one operation of most machines */
        for (int32_t i = 0; i < bytes; i++) {
            out[i] = (uint8_t)((first[i] + second[i] + 1) >> 1);
        }
        return;
    }
    for (int32_t i = 0; i < bytes; i++) { /* at most 255 * 256 + 128: 16 bits hold it */
        out[i] = (uint8_t)((uint16_t)(first[i] * w1 + second[i] * w2 + 128) >> 8);
    }
}

/* The horizontal pass over one packed row, after which at least one more byte can be read: both neighbours of every
 * target are gathered, a word each, and then blended in one long loop that compilers vectorise. `first` and `second` are
 * working memory of 3 * RFE_INPUT_WIDTH + 4 bytes. */
static inline void rfe_blend_columns(const rfe_letterbox *box, const uint8_t *RFE_RESTRICT row, uint8_t *RFE_RESTRICT first,
                                     uint8_t *RFE_RESTRICT second, uint8_t *RFE_RESTRICT out) {
    const int32_t bytes = 3 * box->width;
    for (int32_t x = 0; x < box->width; x++) { /* the fourth byte is overwritten by the next pixel */
        memcpy(first + 3 * x, row + 3 * box->columns[x].first, 4);
        memcpy(second + 3 * x, row + 3 * box->columns[x].second, 4);
    }
    for (int32_t i = 0; i < bytes; i++) {
        const uint16_t weight = box->column_weights[i];
        out[i] = (uint8_t)((uint16_t)(first[i] * (256 - weight) + second[i] * weight + 128) >> 8);
    }
}

/* Every n-th pixel of a packed row, from the first tap on. */
static inline void rfe_pick_columns(const rfe_letterbox *box, const uint8_t *RFE_RESTRICT row, uint8_t *RFE_RESTRICT out) {
    const ptrdiff_t step = 3 * (ptrdiff_t)box->column_step;
    int32_t left = box->width - 1;
    row += 3 * box->columns[0].first;
    for (; left >= 4; left -= 4) {
        for (int32_t i = 0; i < 4; i++) { /* the fourth byte is overwritten by the next pixel */
            memcpy(out + 3 * i, row + step * i, 4);
        }
        row += 4 * step;
        out += 12;
    }
    for (; left > 0; left--) {
        memcpy(out, row, 3);
        row += step;
        out += 3;
    }
    memcpy(out, row, 3);
}

/* One row of the picture. `rows` is working memory as for rfe_letterbox_run. */
static inline void rfe_letterbox_row(const rfe_letterbox *box, const rfe_frame *frame, int32_t y, uint8_t *rows,
                                     uint8_t *out) {
    const int32_t bytes = box->frame_width * 3;
    uint8_t *const spare = rows + rfe_row_bytes(box->frame_width);
    uint8_t *const blended = spare + rfe_row_bytes(box->frame_width);
    const rfe_tap *const tap = &box->rows[y];
    const uint8_t *row = rfe_packed_row(frame, tap->first, box->frame_width, rows);
    if (tap->weight != 0) {
        rfe_blend(row, rfe_packed_row(frame, tap->second, box->frame_width, spare), tap->weight, bytes, blended);
        row = blended;
    }
    if (box->column_step == 1) {
        memcpy(out, row, (size_t)bytes);
    } else if (box->column_step > 1) {
        if (box->columns[0].weight != 0) { /* all neighbours, though every n-th is wanted: compilers vectorise it */
            rfe_blend(row, row + 3, 128, bytes - 3, spare);
            row = spare;
        }
        rfe_pick_columns(box, row, out);
    } else {
        if (row != blended) { /* the frame's own memory may end with its last pixel */
            memcpy(blended, row, (size_t)bytes);
        }
        rfe_blend_columns(box, blended, rows, spare, out);
    }
}

/* Write the frame into `input`, RFE_INPUT_BYTES bytes, NHWC, BGR. `rows` has rfe_rows_bytes(frame_width) bytes. */
static inline void rfe_letterbox_run(const rfe_letterbox *box, const rfe_frame *frame, uint8_t *rows, uint8_t *input) {
    const size_t pitch = (size_t)RFE_INPUT_WIDTH * 3;
    memset(rows, 0, rfe_rows_bytes(box->frame_width)); /* words are read past the last pixel of a row */
    for (int32_t y = 0; y < RFE_INPUT_HEIGHT; y++) {
        uint8_t *const out = input + (size_t)y * pitch;
        const int32_t picture = y < box->height ? box->width : 0;
        if (picture != 0) {
            rfe_letterbox_row(box, frame, y, rows, out);
        }
        if (y != 0 && y != box->height) { /* the border above is this row's, too */
            memcpy(out + 3 * picture, out + 3 * picture - pitch, pitch - 3 * (size_t)picture);
            continue;
        }
        for (int32_t x = picture; x < RFE_INPUT_WIDTH; x++) {
            memcpy(out + 3 * x, rfe_padding, 3);
        }
    }
}

/* What the network reads for a frame: the frame's own memory where that is its input already, as a camera of this size
 * gives it, which then must stay until the network has run; otherwise `input`, written by rfe_letterbox_run. */
static inline const uint8_t *rfe_network_input(const rfe_letterbox *box, const rfe_frame *frame, uint8_t *rows,
                                               uint8_t *input) {
    if (box->frame_width == RFE_INPUT_WIDTH && box->frame_height == RFE_INPUT_HEIGHT && frame->colour == RFE_BGR &&
        frame->column_stride == 3 && frame->row_stride == RFE_INPUT_WIDTH * 3) {
        return frame->pixels;
    }
    rfe_letterbox_run(box, frame, rows, input);
    return input;
}
