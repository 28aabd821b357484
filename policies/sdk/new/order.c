static uint64_t small = 1000000;

void exports_tidegate_policy_meta_describe(exports_tidegate_policy_meta_info_t *info) {
  static contract_string_t reasons[1];
  static exports_tidegate_policy_meta_setting_doc_t settings[1];
  static const char *words[1] = {"small-then-old"};
  for (size_t i = 0; i < 1; i++) reasons[i] = text(words[i]);
  settings[0].key = text("small");
  settings[0].help = text("bytes up to which a recording is small");
  settings[0].default_.tag = EXPORTS_TIDEGATE_POLICY_META_VALUE_INT;
  settings[0].default_.val.int_ = 1000000;
  info->name = text(NAME);
  info->version = text("0.1.0");
  info->summary = text("small recordings first, then the oldest");
  info->reasons.ptr = reasons;
  info->reasons.len = 1;
  info->settings.ptr = settings;
  info->settings.len = 1;
  info->patience = 0;
}

bool exports_tidegate_policy_meta_configure(exports_tidegate_policy_meta_list_setting_t *given, contract_string_t *why) {
  for (size_t i = 0; i < given->len; i++) {
    const exports_tidegate_policy_meta_setting_t *setting = &given->ptr[i];
    if (setting->key.len != strlen("small") || memcmp(setting->key.ptr, "small", setting->key.len) != 0) {
      *why = text("the only setting is small");
      return false;
    }
    if (setting->value.tag != EXPORTS_TIDEGATE_POLICY_META_VALUE_INT || setting->value.val.int_ < 1) {
      *why = text("small must be a number above 0");
      return false;
    }
    small = (uint64_t)setting->value.val.int_;
  }
  return true;
}

void exports_tidegate_policy_order_score(exports_tidegate_policy_order_situation_t *now,
                                         exports_tidegate_policy_order_list_candidate_t *batch,
                                         exports_tidegate_policy_order_ordering_t *ordering) {
  (void)now;
  ordering->reason = 1;
  ordering->scores.len = batch->len;
  ordering->scores.ptr = malloc(batch->len * sizeof(*ordering->scores.ptr));
  for (size_t i = 0; i < batch->len; i++) {
    const exports_tidegate_policy_order_candidate_t *job = &batch->ptr[i];
    uint64_t most = INT64_MAX - 86400000;
    int64_t age = (int64_t)(job->age < most ? job->age : most);
    /* The highest score goes first. A size that nobody knows is 0: such a job counts by its age alone. */
    ordering->scores.ptr[i] = age + (job->size > 0 && job->size <= small ? 86400000 : 0);
  }
}
