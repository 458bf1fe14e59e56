/* ---- scores: the sigmoid of one logit ---- */

/* What the first raw value of every candidate reaches. */
static inline double rfe_least_logit(double score_threshold) { return rfe_logit(score_threshold); }

/* By what candidates are ordered: the logit. 0 when the candidate is none. */
static inline int rfe_rank(const rfe_output *outputs, int32_t level, int32_t index, double score_threshold,
                           double *rank) {
    (void)score_threshold; /* reached, or it would not be a candidate */
    *rank = rfe_real(&outputs[level], (size_t)index);
    return fabs(*rank) <= RFE_RAW_LIMIT;
}

static inline double rfe_score(double rank) { return 1.0 / (1.0 + exp(-rank)); }
