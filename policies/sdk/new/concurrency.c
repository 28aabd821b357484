static uint64_t uploads = 2;

void exports_tidegate_policy_meta_describe(exports_tidegate_policy_meta_info_t *info) {
  static contract_string_t reasons[2];
  static exports_tidegate_policy_meta_setting_doc_t settings[1];
  static const char *words[2] = {"free", "metered"};
  for (size_t i = 0; i < 2; i++) reasons[i] = text(words[i]);
  settings[0].key = text("uploads");
  settings[0].help = text("uploads at once");
  settings[0].default_.tag = EXPORTS_TIDEGATE_POLICY_META_VALUE_INT;
  settings[0].default_.val.int_ = 2;
  info->name = text(NAME);
  info->version = text("0.1.0");
  info->summary = text("one upload while the way is metered, else more");
  info->reasons.ptr = reasons;
  info->reasons.len = 2;
  info->settings.ptr = settings;
  info->settings.len = 1;
  info->patience = 0;
}

bool exports_tidegate_policy_meta_configure(exports_tidegate_policy_meta_list_setting_t *given, contract_string_t *why) {
  for (size_t i = 0; i < given->len; i++) {
    const exports_tidegate_policy_meta_setting_t *setting = &given->ptr[i];
    if (setting->key.len != strlen("uploads") || memcmp(setting->key.ptr, "uploads", setting->key.len) != 0) {
      *why = text("the only setting is uploads");
      return false;
    }
    if (setting->value.tag != EXPORTS_TIDEGATE_POLICY_META_VALUE_INT || setting->value.val.int_ < 1) {
      *why = text("uploads must be a number above 0");
      return false;
    }
    uploads = (uint64_t)setting->value.val.int_;
  }
  return true;
}

void exports_tidegate_policy_concurrency_decide(exports_tidegate_policy_concurrency_situation_t *now,
                                                exports_tidegate_policy_concurrency_limits_t *limits) {
  bool metered = now->metered == TIDEGATE_POLICY_TYPES_KNOWN_YES;
  limits->uploads = metered ? 1 : (uint16_t)(uploads < 100 ? uploads : 100);
  limits->recheck = 0;
  limits->memo = 0;
  limits->reason = metered ? 2 : 1;
}
