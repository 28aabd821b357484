/* Each kind of error has its own way to try again: the rules of retry-by-class, in C. */
#include <stdlib.h>
#include <string.h>

#include "contract.h"

enum { HOPELESS = 1, OPERATOR, EXHAUSTED, THROTTLED, AFRESH, BACKOFF };

/* Codes of stores that are busy. */
static const char *const busy[] = {"SlowDown", "ServiceUnavailable", "RequestLimitExceeded", "ThrottlingException",
                                   "InternalError"};
/* Codes that a person must mend. */
static const char *const for_people[] = {"AccessDenied", "NoSuchBucket", "QuotaExceeded", "InvalidBucketState"};
/* Codes that the same object gets every time. */
static const char *const never[] = {"EntityTooLarge", "InvalidObjectName", "KeyTooLongError"};

static const char *const reasons[] = {"hopeless",  "needs-operator", "exhausted",
                                      "throttled", "start-afresh",   "backoff"};

#define COUNT(list) (sizeof(list) / sizeof((list)[0]))

/* A setting: a number from 1 to `most`. */
static struct {
  const char *key, *help, *wrong;
  int64_t value, most;
} settings[] = {
    {"attempts", "attempts in all", "attempts must be from 1 to 1000000", 8, 1000000},
    {"base-ms", "delay after the first failed attempt; it doubles with each one", "base-ms must be from 1 to 86400000",
     10000, 86400000},
    {"cap-ms", "longest delay", "cap-ms must be from 1 to 86400000", 3600000, 86400000},
};
enum { ATTEMPTS, BASE, CAP };

/* Constants may be returned as they are: free does nothing. */
static contract_string_t text(const char *words) {
  contract_string_t made = {(uint8_t *)words, strlen(words)};
  return made;
}

static bool is(const contract_string_t *given, const char *words) {
  size_t length = strlen(words);
  return given->len == length && memcmp(given->ptr, words, length) == 0;
}

static bool is_one_of(const contract_string_t *given, const char *const *list, size_t count) {
  for (size_t i = 0; i < count; i++) {
    if (is(given, list[i])) return true;
  }
  return false;
}

void exports_tidegate_policy_meta_describe(exports_tidegate_policy_meta_info_t *info) {
  static contract_string_t words[COUNT(reasons)];
  static exports_tidegate_policy_meta_setting_doc_t docs[COUNT(settings)];
  for (size_t i = 0; i < COUNT(reasons); i++) words[i] = text(reasons[i]);
  for (size_t i = 0; i < COUNT(settings); i++) {
    docs[i].key = text(settings[i].key);
    docs[i].help = text(settings[i].help);
    docs[i].default_.tag = EXPORTS_TIDEGATE_POLICY_META_VALUE_INT;
    docs[i].default_.val.int_ = settings[i].value;
  }
  info->name = text("retry-by-class-c");
  info->version = text("0.1.0");
  info->summary = text("Each kind of error has its own way to try again.");
  info->reasons.ptr = words;
  info->reasons.len = COUNT(words);
  info->settings.ptr = docs;
  info->settings.len = COUNT(docs);
  info->patience = 0;
}

bool exports_tidegate_policy_meta_configure(exports_tidegate_policy_meta_list_setting_t *given, contract_string_t *why) {
  for (size_t i = 0; i < given->len; i++) {
    const exports_tidegate_policy_meta_setting_t *setting = &given->ptr[i];
    size_t at = 0;
    while (at < COUNT(settings) && !is(&setting->key, settings[at].key)) at++;
    if (at == COUNT(settings)) {
      *why = text("there are the settings attempts, base-ms and cap-ms");
      return false;
    }
    int64_t value = setting->value.val.int_;
    if (setting->value.tag != EXPORTS_TIDEGATE_POLICY_META_VALUE_INT || value < 1 || value > settings[at].most) {
      *why = text(settings[at].wrong);
      return false;
    }
    settings[at].value = value;
  }
  return true;
}

/* A number from a seed, evenly spread over 0..=most: SplitMix64 (Steele, Lea, Flood 2014). */
static uint64_t scatter(uint64_t seed, uint64_t most) {
  uint64_t z = seed + 0x9E3779B97F4A7C15ULL;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
  z ^= z >> 31;
  return most == UINT64_MAX ? z : z % (most + 1);
}

/* Doubles with each step up to the longest, and spreads over its upper half. */
static uint64_t delay(uint64_t steps, uint64_t seed) {
  uint64_t longest = (uint64_t)settings[CAP].value;
  uint64_t wait = (uint64_t)settings[BASE].value << (steps < 20 ? steps : 20);
  if (wait > longest) wait = longest;
  return wait - wait / 2 + scatter(seed, wait / 2);
}

static void give_up(exports_tidegate_policy_retry_decision_t *decision, uint8_t why, uint16_t reason) {
  decision->action.tag = EXPORTS_TIDEGATE_POLICY_RETRY_ACTION_GIVE_UP;
  decision->action.val.give_up = why;
  decision->reason = reason;
}

static void park(exports_tidegate_policy_retry_decision_t *decision) {
  decision->action.tag = EXPORTS_TIDEGATE_POLICY_RETRY_ACTION_PARK;
  decision->reason = OPERATOR;
}

static void after(exports_tidegate_policy_retry_decision_t *decision, uint64_t wait, uint16_t reason) {
  decision->action.tag = EXPORTS_TIDEGATE_POLICY_RETRY_ACTION_AFTER;
  decision->action.val.after = wait;
  decision->reason = reason;
}

void exports_tidegate_policy_retry_next(exports_tidegate_policy_retry_attempt_t *attempt,
                                        exports_tidegate_policy_retry_decision_t *decision) {
  bool vanished = attempt->class_ == EXPORTS_TIDEGATE_POLICY_RETRY_ERROR_CLASS_VANISHED;
  bool rejected = attempt->class_ == EXPORTS_TIDEGATE_POLICY_RETRY_ERROR_CLASS_REJECTED;
  bool damaged = attempt->class_ == EXPORTS_TIDEGATE_POLICY_RETRY_ERROR_CLASS_DAMAGED;
  bool source = attempt->subject == EXPORTS_TIDEGATE_POLICY_RETRY_SUBJECT_SOURCE;
  bool upload = attempt->subject == EXPORTS_TIDEGATE_POLICY_RETRY_SUBJECT_UPLOAD;
  decision->memo = 0;

  if ((vanished && source) || (rejected && is_one_of(&attempt->code, never, COUNT(never)))) {
    give_up(decision, EXPORTS_TIDEGATE_POLICY_RETRY_ABANDON_HOPELESS, HOPELESS);
  } else if ((damaged && source) || (rejected && is_one_of(&attempt->code, for_people, COUNT(for_people)))) {
    park(decision);
  } else if (attempt->spent >= (uint64_t)settings[ATTEMPTS].value) {
    give_up(decision, EXPORTS_TIDEGATE_POLICY_RETRY_ABANDON_EXHAUSTED, EXHAUSTED);
  } else if (rejected && is_one_of(&attempt->code, busy, COUNT(busy))) {
    /* The memo counts how often in a row: each time it is left alone for four times as long. */
    uint64_t times = attempt->memo < UINT64_MAX ? attempt->memo + 1 : attempt->memo;
    after(decision, delay((times < 10 ? times : 10) * 2, attempt->seed), THROTTLED);
    decision->memo = times;
  } else if (vanished && upload) {
    /* Stores forget uploads that were left open for long; a new one has nothing to wait for. */
    after(decision, 1000, AFRESH);
  } else {
    after(decision, delay(attempt->spent > 0 ? attempt->spent - 1 : 0, attempt->seed), BACKOFF);
  }
}
