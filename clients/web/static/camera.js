// Taking a photo: by the phone's own camera, or from a live view on other machines.

const WRONG = {
  NotAllowedError: "Your browser does not let this page use the camera. Allow it beside the address, or choose a picture instead.",
  NotFoundError: "No camera was found. Connect one, or choose a picture instead.",
  NotReadableError: "The camera is in use by another program. Close that, or choose a picture instead.",
  insecure: "Browsers let pages use the camera only over https or on this machine. Choose a picture instead.",
};
const OTHERWISE = "The camera does not start. Choose a picture instead.";

export class Camera {
  #dialog = document.getElementById("camera");
  #video = document.getElementById("camera-live");
  #shutter = document.getElementById("shutter");
  #stream = null;

  /** @param {(photo: File) => void} onPhoto */
  constructor(onPhoto) {
    this.#dialog.addEventListener("close", () => this.#stop());
    document.getElementById("camera-close").addEventListener("click", () => this.#dialog.close());
    this.#shutter.addEventListener("click", async () => {
      const photo = await this.#photo();
      this.#dialog.close();
      onPhoto(photo);
    });
  }

  async open() {
    this.#say("");
    this.#shutter.disabled = true;
    this.#dialog.showModal();
    try {
      if (!navigator.mediaDevices) throw new DOMException("", "insecure");
      const stream = await navigator.mediaDevices.getUserMedia({
        video: { facingMode: "environment", width: { ideal: 1920 } },
      });
      this.#stream = stream;
      if (!this.#dialog.open) this.#stop(); // closed before anybody allowed it
      this.#video.srcObject = stream;
      await this.#video.play();
      this.#shutter.disabled = false;
      this.#shutter.focus();
    } catch (error) {
      if (this.#dialog.open) this.#say(WRONG[error.name] ?? OTHERWISE);
    }
  }

  #say(words) {
    document.getElementById("camera-wrong").textContent = words;
    this.#video.hidden = words !== "";
  }

  #stop() {
    for (const track of this.#stream?.getTracks() ?? []) track.stop();
    this.#stream = this.#video.srcObject = null;
  }

  async #photo() {
    const canvas = document.createElement("canvas");
    [canvas.width, canvas.height] = [this.#video.videoWidth, this.#video.videoHeight];
    canvas.getContext("2d").drawImage(this.#video, 0, 0);
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
    return new File([blob], "photo.jpg", { type: "image/jpeg" });
  }
}

/** Whether the system's own camera is the better one. */
export function isPhone() {
  return matchMedia("(pointer: coarse)").matches && !matchMedia("(any-pointer: fine)").matches;
}
