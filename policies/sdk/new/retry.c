static uint64_t attempts = 5;

void exports_tidegate_policy_meta_describe(exports_tidegate_policy_meta_info_t *info) {
  static contract_string_t reasons[2];
  static exports_tidegate_policy_meta_setting_doc_t settings[1];
  static const char *words[2] = {"again", "exhausted"};
  for (size_t i = 0; i < 2; i++) reasons[i] = text(words[i]);
  settings[0].key = text("attempts");
  settings[0].help = text("attempts in all");
  settings[0].default_.tag = EXPORTS_TIDEGATE_POLICY_META_VALUE_INT;
  settings[0].default_.val.int_ = 5;
  info->name = text(NAME);
  info->version = text("0.1.0");
  info->summary = text("tries again after one minute more each time");
  info->reasons.ptr = reasons;
  info->reasons.len = 2;
  info->settings.ptr = settings;
  info->settings.len = 1;
  info->patience = 0;
}

bool exports_tidegate_policy_meta_configure(exports_tidegate_policy_meta_list_setting_t *given, contract_string_t *why) {
  for (size_t i = 0; i < given->len; i++) {
    const exports_tidegate_policy_meta_setting_t *setting = &given->ptr[i];
    if (setting->key.len != strlen("attempts") || memcmp(setting->key.ptr, "attempts", setting->key.len) != 0) {
      *why = text("the only setting is attempts");
      return false;
    }
    if (setting->value.tag != EXPORTS_TIDEGATE_POLICY_META_VALUE_INT || setting->value.val.int_ < 1) {
      *why = text("attempts must be a number above 0");
      return false;
    }
    attempts = (uint64_t)setting->value.val.int_;
  }
  return true;
}

void exports_tidegate_policy_retry_next(exports_tidegate_policy_retry_attempt_t *attempt,
                                        exports_tidegate_policy_retry_decision_t *decision) {
  decision->memo = 0;
  if (attempt->spent >= attempts) {
    decision->action.tag = EXPORTS_TIDEGATE_POLICY_RETRY_ACTION_GIVE_UP;
    decision->action.val.give_up = EXPORTS_TIDEGATE_POLICY_RETRY_ABANDON_EXHAUSTED;
    decision->reason = 2;
    return;
  }
  decision->action.tag = EXPORTS_TIDEGATE_POLICY_RETRY_ACTION_AFTER;
  decision->action.val.after = attempt->spent * 60000ULL;
  decision->reason = 1;
}
