/* ---- anchors and raw values ---- */

#define RFE_RAW_LIMIT 500.0 /* a raw value beyond this is damage, and drops its candidate as NaN does */

static inline double rfe_real(const rfe_output *output, size_t index) {
    if (output->type == RFE_FLOAT32) {
        return (double)((const float *)output->data)[index];
    }
    if (output->type == RFE_INT8) {
        return (((const int8_t *)output->data)[index] - (double)output->zero_point) * output->scale;
    }
    return (((const uint8_t *)output->data)[index] - (double)output->zero_point) * output->scale;
}

static inline int32_t rfe_columns_of(int32_t level) {
    return (RFE_INPUT_WIDTH + rfe_strides[level] - 1) / rfe_strides[level];
}

static inline int32_t rfe_rows_of(int32_t level) {
    return (RFE_INPUT_HEIGHT + rfe_strides[level] - 1) / rfe_strides[level];
}

static inline int32_t rfe_anchors_of(int32_t level) {
    return rfe_columns_of(level) * rfe_rows_of(level) * rfe_sizes[level];
}

/* Centre of an anchor, by its index within its level. */
static inline void rfe_centre(int32_t level, int32_t index, double centre[2]) {
    const int32_t cell = index / rfe_sizes[level];
    centre[0] = (cell % rfe_columns_of(level) + RFE_ORIGIN) * rfe_strides[level];
    centre[1] = (cell / rfe_columns_of(level) + RFE_ORIGIN) * rfe_strides[level];
}

static inline int rfe_usable(const rfe_output *output, size_t first, size_t count, double limit) {
    for (size_t i = first; i < first + count; i++) {
        if (!(fabs(rfe_real(output, i)) <= limit)) { /* NaN is not */
            return 0;
        }
    }
    return 1;
}

/* The logit whose sigmoid is `score`. */
static inline double rfe_logit(double score) {
    if (score <= 0.0 || score >= 1.0) {
        return score < 0.5 ? -(double)INFINITY : (double)INFINITY;
    }
    return log(score / (1.0 - score));
}
