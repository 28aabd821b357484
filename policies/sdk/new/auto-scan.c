static uint64_t tries = 3;

void exports_tidegate_policy_meta_describe(exports_tidegate_policy_meta_info_t *info) {
  static contract_string_t reasons[2];
  static exports_tidegate_policy_meta_setting_doc_t settings[1];
  static const char *words[2] = {"fresh", "failed-too-often"};
  for (size_t i = 0; i < 2; i++) reasons[i] = text(words[i]);
  settings[0].key = text("tries");
  settings[0].help = text("jobs that may fail for an episode");
  settings[0].default_.tag = EXPORTS_TIDEGATE_POLICY_META_VALUE_INT;
  settings[0].default_.val.int_ = 3;
  info->name = text(NAME);
  info->version = text("0.1.0");
  info->summary = text("queues every episode that has not failed too often");
  info->reasons.ptr = reasons;
  info->reasons.len = 2;
  info->settings.ptr = settings;
  info->settings.len = 1;
  info->patience = 0;
}

bool exports_tidegate_policy_meta_configure(exports_tidegate_policy_meta_list_setting_t *given, contract_string_t *why) {
  for (size_t i = 0; i < given->len; i++) {
    const exports_tidegate_policy_meta_setting_t *setting = &given->ptr[i];
    if (setting->key.len != strlen("tries") || memcmp(setting->key.ptr, "tries", setting->key.len) != 0) {
      *why = text("the only setting is tries");
      return false;
    }
    if (setting->value.tag != EXPORTS_TIDEGATE_POLICY_META_VALUE_INT || setting->value.val.int_ < 1) {
      *why = text("tries must be a number above 0");
      return false;
    }
    tries = (uint64_t)setting->value.val.int_;
  }
  return true;
}

void exports_tidegate_policy_auto_scan_select(exports_tidegate_policy_auto_scan_situation_t *now,
                                              exports_tidegate_policy_auto_scan_list_episode_t *batch,
                                              exports_tidegate_policy_auto_scan_list_choice_t *choices) {
  (void)now;
  choices->len = batch->len;
  choices->ptr = malloc(batch->len * sizeof(*choices->ptr));
  for (size_t i = 0; i < batch->len; i++) {
    bool fresh = batch->ptr[i].tries < tries;
    choices->ptr[i].action =
        fresh ? EXPORTS_TIDEGATE_POLICY_AUTO_SCAN_ACTION_ENQUEUE : EXPORTS_TIDEGATE_POLICY_AUTO_SCAN_ACTION_SKIP;
    choices->ptr[i].reason = fresh ? 1 : 2;
  }
}
