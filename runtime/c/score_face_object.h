/* ---- scores: the root of the sigmoids' product, of face and object ---- */

/* What the first raw value of every candidate reaches, whatever its object value is: no sigmoid is above 1. The margin
 * is for rounding near a score of 1; rfe_rank decides. */
static inline double rfe_least_logit(double score_threshold) {
    return rfe_logit(score_threshold * score_threshold) - 1.0;
}

/* By what candidates are ordered: the score. 0 when the candidate is none. */
static inline int rfe_rank(const rfe_output *outputs, int32_t level, int32_t index, double score_threshold,
                           double *rank) {
    const double face = rfe_real(&outputs[level], (size_t)index);
    const double object = rfe_real(&outputs[RFE_OBJECT_HEAD * RFE_LEVELS + level], (size_t)index);
    if (!(fabs(face) <= RFE_RAW_LIMIT && fabs(object) <= RFE_RAW_LIMIT)) {
        return 0;
    }
    *rank = 1.0 / (sqrt(1.0 + exp(-face)) * sqrt(1.0 + exp(-object)));
    return *rank >= score_threshold;
}

static inline double rfe_score(double rank) { return rank; }
