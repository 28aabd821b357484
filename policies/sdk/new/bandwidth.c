static uint64_t metered_cap = 125000;

void exports_tidegate_policy_meta_describe(exports_tidegate_policy_meta_info_t *info) {
  static contract_string_t reasons[2];
  static exports_tidegate_policy_meta_setting_doc_t settings[1];
  static const char *words[2] = {"free", "metered"};
  for (size_t i = 0; i < 2; i++) reasons[i] = text(words[i]);
  settings[0].key = text("metered-cap");
  settings[0].help = text("bytes per second while the way is metered");
  settings[0].default_.tag = EXPORTS_TIDEGATE_POLICY_META_VALUE_INT;
  settings[0].default_.val.int_ = 125000;
  info->name = text(NAME);
  info->version = text("0.1.0");
  info->summary = text("a cap while the way is metered");
  info->reasons.ptr = reasons;
  info->reasons.len = 2;
  info->settings.ptr = settings;
  info->settings.len = 1;
  info->patience = 0;
}

bool exports_tidegate_policy_meta_configure(exports_tidegate_policy_meta_list_setting_t *given, contract_string_t *why) {
  for (size_t i = 0; i < given->len; i++) {
    const exports_tidegate_policy_meta_setting_t *setting = &given->ptr[i];
    if (setting->key.len != strlen("metered-cap") || memcmp(setting->key.ptr, "metered-cap", setting->key.len) != 0) {
      *why = text("the only setting is metered-cap");
      return false;
    }
    if (setting->value.tag != EXPORTS_TIDEGATE_POLICY_META_VALUE_INT || setting->value.val.int_ < 1) {
      *why = text("metered-cap must be a number above 0");
      return false;
    }
    metered_cap = (uint64_t)setting->value.val.int_;
  }
  return true;
}

void exports_tidegate_policy_bandwidth_decide(exports_tidegate_policy_bandwidth_situation_t *now,
                                              exports_tidegate_policy_bandwidth_budget_t *budget) {
  bool metered = now->metered == TIDEGATE_POLICY_TYPES_KNOWN_YES;
  budget->bytes_per_second.is_some = metered;
  budget->bytes_per_second.val = metered_cap;
  budget->recheck = 0;
  budget->memo = 0;
  budget->reason = metered ? 2 : 1;
}
